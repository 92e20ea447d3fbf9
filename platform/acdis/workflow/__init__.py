"""What several verbs do: open specs, train cells through cluster and tracking, publish what came of it."""

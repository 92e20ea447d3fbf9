"""The dashboard: pages inside MLflow's own server. Read only.

`app` puts them beside MLflow's UI; `site` is what they read: the server's store (`store`, `runs`), the cells'
folders (`folders`) and the specs (`catalogue`). A page is a module in `pages/` and a template.
"""

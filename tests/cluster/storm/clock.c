/* A clock that is wrong: adds the seconds that stand in the file ACDIS_CLOCK (an int64, mapped) to the time of day.

   For tests/cluster/storm only, by LD_PRELOAD. Moments for which one waits are given to the kernel in its own time:
   libfaketime 0.9.10 lets clock_nanosleep fail with EINVAL, and knows no futex that absl waits on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *wrong;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("ACDIS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *wrong, PROT_READ, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (page != MAP_FAILED) wrong = page;
}

static int64_t offset(void) { return wrong ? *wrong : 0; }

static int is_date(clockid_t which) { return which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE; }

/* A deadline as the kernel knows it. Those of the monotonic clock, seconds since boot, are far below a date. */
static const struct timespec *true_time(const struct timespec *at, struct timespec *room) {
  if (!at || at->tv_sec < 1000000000) return at;
  *room = *at;
  room->tv_sec -= offset();
  return room;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t which, struct timespec *now) {
  static __typeof__(&clock_gettime) real;
  if (!real) real = REAL(clock_gettime);
  int failed = real(which, now);
  if (!failed && is_date(which)) now->tv_sec += offset();
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int clock_nanosleep(clockid_t which, int flags, const struct timespec *at, struct timespec *left) {
  struct timespec room;
  if ((flags & TIMER_ABSTIME) && is_date(which)) at = true_time(at, &room);
  return REAL(clock_nanosleep)(which, flags, at, left);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict at) {
  static __typeof__(&pthread_cond_timedwait) real;
  struct timespec room;
  if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  return real(condition, mutex, true_time(at, &room));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict at) {
  struct timespec room;
  return REAL(pthread_mutex_timedlock)(mutex, true_time(at, &room));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict at) {
  struct timespec room;
  return REAL(sem_timedwait)(semaphore, true_time(at, &room));
}

long syscall(long number, ...) {
  static __typeof__(&syscall) real;
  struct timespec room;
  va_list given;
  long a[6];
  if (!real) real = REAL(syscall);
  va_start(given, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(given, long);
  va_end(given);
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME)) a[3] = (long)true_time((void *)a[3], &room);
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

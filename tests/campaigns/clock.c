// Preloaded into a process, it lets the wall clock jump by the number of seconds in a file that the
// variable TEST_CLOCK names (8 bytes, which another process may change). Everything else stays: the
// monotonic clock, sleeps, and the times of files. What waits until a time of day is given the time
// of the machine, as it would wake up at once or in years.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none, *ahead = &none;

__attribute__((constructor)) static void start(void) {
  const char* name = getenv("TEST_CLOCK");
  const int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void* mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) ahead = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  const int status = (int)syscall(SYS_clock_gettime, clock, now);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += *ahead;
  return status;
}

time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval* out, void* zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

// A condition may wait by the monotonic clock, whose numbers are small.
static struct timespec of_machine(const struct timespec* until) {
  struct timespec result = *until;
  if (result.tv_sec > 1000000000) result.tv_sec -= *ahead;
  return result;
}

int sem_timedwait(sem_t* semaphore, const struct timespec* until) {
  int (*real)(sem_t*, const struct timespec*) = dlsym(RTLD_NEXT, "sem_timedwait");
  const struct timespec own = of_machine(until);
  return real(semaphore, &own);
}

int pthread_mutex_timedlock(pthread_mutex_t* mutex, const struct timespec* until) {
  int (*real)(pthread_mutex_t*, const struct timespec*) =
      dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
  const struct timespec own = of_machine(until);
  return real(mutex, &own);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const struct timespec* until) {
  int (*real)(pthread_cond_t*, pthread_mutex_t*, const struct timespec*) = NULL;
  // The older version of the same name, of 2.2.5, has another kind of condition.
  real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  const struct timespec own = of_machine(until);
  return real(condition, mutex, &own);
}

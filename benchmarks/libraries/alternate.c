/* Times two functions in turn: `calls` calls of each in a round, microseconds a call. */
#include <stdint.h>
#include <time.h>

typedef int32_t (*library)(void *context, void *in, void *out, void *workspace);
typedef void *(*runtime)(void *session, const void *options, const char *const *names, void *const *in, uint64_t count,
                         const char *const *outputs, uint64_t results, void **out);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

int alternate(library ours, void *context, void *in, void *out, void *workspace, runtime theirs, void *session,
              const char *const *names, void *const *values, const char *const *outputs, void **results, int calls,
              int rounds, double *our_times, double *their_times) {
  for (int round = 0; round < rounds; round++) {
    double begin = now();
    for (int i = 0; i < calls; i++)
      if (ours(context, in, out, workspace)) return 1;
    double between = now();
    for (int i = 0; i < calls; i++)
      if (theirs(session, 0, names, values, 1, outputs, 1, results)) return 2;
    our_times[round] = (between - begin) / calls;
    their_times[round] = (now() - between) / calls;
  }
  return 0;
}

/* comm.c - the world of one process; see comm.h. A launcher that asks for more is refused, because
 * a run that silently trains N unrelated copies is worse than none. Tested by
 * tests/unit/test_runtime.c. */
#include "common/runtime/comm/comm.h"

#include "common/base/error.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct Comm {
    int rank, world;
    double deadline_seconds;
};

/* The launchers' words for the size of the world; Slurm's counts only inside a step (srun). */
static int launcher_world(const char **variable)
{
    static const char *const names[] = {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *s = getenv(names[i]);
        if (s && atoi(s) > 1) {
            *variable = names[i];
            return atoi(s);
        }
    }
    return 1;
}

int comm_open(Comm **c, double deadline_seconds)
{
    const char *variable = NULL;
    *c = NULL;
    int world = launcher_world(&variable);
    if (world > 1)
        return error_set(ERR_UNAVAILABLE,
                         "%s=%d: this build runs one process, a launcher asks for %d; start it "
                         "without the launcher, or unset %s",
                         variable, world, world, variable);
    *c = xcalloc(1, sizeof **c);
    (*c)->world = 1;
    (*c)->deadline_seconds = deadline_seconds;
    return 0;
}

void comm_close(Comm *c)
{
    free(c);
}

int comm_rank(const Comm *c)
{
    return c->rank;
}

int comm_world(const Comm *c)
{
    return c->world;
}

_Noreturn void comm_abort(Comm *c, int code)
{
    (void)c;
    _exit(code);
}

/* With one rank every exchange is a copy to oneself. */
static int copy_self(Tensor *dst, const Tensor *src)
{
    CHECK(dst->dtype == src->dtype && tensor_bytes(dst) == tensor_bytes(src), "%s from %s",
          tensor_text(dst), tensor_text(src));
    if (dst->data != src->data && tensor_bytes(src))
        memcpy(dst->data, src->data, tensor_bytes(src));
    return 0;
}

int comm_all_to_all(Comm *c, Tensor *dst, const Tensor *src)
{
    (void)c;
    return copy_self(dst, src);
}

int comm_all_gather(Comm *c, Tensor *dst, const Tensor *src)
{
    (void)c;
    return copy_self(dst, src);
}

int comm_broadcast(Comm *c, Tensor *t, int root)
{
    (void)t;
    CHECK(root >= 0 && root < c->world, "root %d of %d", root, c->world);
    return 0;
}

int comm_gather_f64(Comm *c, double *dst, const double *src, int64_t n)
{
    (void)c;
    if (n > 0 && dst != src)
        memmove(dst, src, (size_t)n * sizeof *dst);
    return 0;
}

int comm_max_i64(Comm *c, int64_t *value)
{
    (void)c;
    (void)value;
    return 0;
}

int comm_barrier(Comm *c)
{
    (void)c;
    return 0;
}

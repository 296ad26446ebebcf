/* test_schedule.c - the learning rate at hand-computed points of both schedules. */
#include "common/train/optim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static OptimConfig config(int schedule)
{
    return (OptimConfig){.learning_rate = 2, .min_lr_ratio = 0.1, .schedule = schedule, .warmup_ratio = 0.03,
                         .warmup_steps = 5};
}

static void close_to(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-14 * fabs(b));
}

static void warm_up_is_linear(void **state)
{
    (void)state;
    OptimConfig c = config(SCHEDULE_COSINE);
    /* 105 steps: w = max(5, ceil(3.15)) = 5; (step + 1) / 5 of 2 */
    close_to(schedule_lr(&c, 0, 105), 0.4);
    close_to(schedule_lr(&c, 1, 105), 0.8);
    close_to(schedule_lr(&c, 4, 105), 2);
    /* 1000 steps: w = ceil(30) = 30 */
    close_to(schedule_lr(&c, 14, 1000), 1);
    close_to(schedule_lr(&c, 29, 1000), 2);
    /* fewer steps than the warm-up: it is cut, not squeezed */
    close_to(schedule_lr(&c, 2, 3), 1.2);
}

static void cosine_goes_to_the_ratio(void **state)
{
    (void)state;
    OptimConfig c = config(SCHEDULE_COSINE);
    close_to(schedule_lr(&c, 5, 105), 2);   /* cos 0 */
    close_to(schedule_lr(&c, 55, 105), 1.1); /* halfway: 0.2 + 1.8 / 2 */
    close_to(schedule_lr(&c, 30, 105), 0.2 + 1.8 * (1 + sqrt(0.5)) / 2); /* a quarter: cos(pi / 4) */
    close_to(schedule_lr(&c, 105, 105), 0.2);
    close_to(schedule_lr(&c, 400, 105), 0.2); /* never up again */
}

static void constant_has_no_warm_up(void **state)
{
    (void)state;
    OptimConfig c = config(SCHEDULE_CONSTANT);
    close_to(schedule_lr(&c, 0, 105), 2);
    close_to(schedule_lr(&c, 104, 105), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(warm_up_is_linear),
                                       cmocka_unit_test(cosine_goes_to_the_ratio),
                                       cmocka_unit_test(constant_has_no_warm_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

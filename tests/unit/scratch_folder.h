/* scratch_folder.h - a fresh folder as the working folder of a test program: setup and teardown of its group. */
#ifndef RLHF_TESTS_UNIT_SCRATCH_FOLDER_H
#define RLHF_TESTS_UNIT_SCRATCH_FOLDER_H

#include "common/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[256];

static int enter(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/%s.XXXXXX", program_invocation_short_name);
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    return chdir("/") == 0 && dir_remove(folder) == 0 ? 0 : -1;
}

#endif

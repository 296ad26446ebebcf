/* version.c - the version text; the only file that is rebuilt with another commit's id. */
#include "common/base/cli.h"

#ifndef RLHF_VERSION
#define RLHF_VERSION "unknown"
#endif

const char *const rlhf_version = RLHF_VERSION;

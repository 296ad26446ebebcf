/* file.h - whole files, atomic replacement, folders. Every error names the path and the cause. */
#ifndef RLHF_BASE_FILE_H
#define RLHF_BASE_FILE_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

bool file_exists(const char *path);
bool file_is_there(const char *path); /* the name; also of a link that leads nowhere, which opening will name */
bool file_is_dir(const char *path);
int64_t file_bytes(const char *path);                    /* size; negative ERR_* */
/* NUL added after n bytes; caller frees. A pipe or device is read to its end. */
int file_read(const char *path, char **data, size_t *n);
/* The same for a file that must lie on a disk: whatever else has its name (a pipe, a device) is refused
 * instead of waited for. */
int file_read_stored(const char *path, char **data, size_t *n);

/* Writes path.tmp in the same folder, fsyncs, renames, fsyncs the folder. ERR_CANTCREATE (also for
 * a full disk) leaves the old file as it was and no temporary behind. A device or pipe is written
 * in place. */
int file_write_atomic(const char *path, const void *data, size_t n);
/* What atomic replacement is made of, for those that write piece by piece. */
int file_write_all(int fd, const char *path, const void *data,
                   size_t n);           /* path: for the message */
int file_sync_parent(const char *path); /* makes a rename to `path` survive a power cut */
bool file_is_special(const char *path); /* exists and is a device or pipe: written in place */
int file_copy(const char *from, const char *to); /* byte for byte, atomic */

int dir_make(const char *path);                    /* mkdir -p */
int dir_make_parent(const char *path);     /* the folder that will hold `path`; "-" needs none */
int dir_remove(const char *path);                  /* recursive; absent is fine */
int dir_commit(const char *tmp, const char *path); /* fsync the files and folder of tmp, rename it
                                                      to path (an existing path is replaced) */
int dir_list(const char *path, char ***names,
             int *n); /* sorted, without . and ..; free each + list */
void dir_list_free(char **names, int n);

char *path_join(const char *a, const char *b); /* caller frees; an absolute b is returned alone */
char *path_dir(const char *path);              /* "." for a bare name */
const char *path_base(const char *path);

/* mmap of a whole stored file, read only. */
typedef struct {
    const unsigned char *data;
    size_t n;
} FileMap;
int file_map(FileMap *m, const char *path);
void file_unmap(FileMap *m);

#endif

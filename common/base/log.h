/* log.h - messages. stderr carries errors, warnings and debug of every rank; stdout is for the
 * human and only rank 0 writes it. RLHF_LOG=error|warn|info|debug sets the level (default info). */
#ifndef RLHF_BASE_LOG_H
#define RLHF_BASE_LOG_H

#include <stdbool.h>

typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } LogLevel;

void log_init(int rank); /* reads RLHF_LOG; call once in main */
void log_set_file(const char *path); /* also append every line (with a time) to path; NULL stops */
int log_rank(void);
void log_print(LogLevel level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool log_enabled(LogLevel level); /* printed on this rank? */

/* The line that stands below all messages on a terminal; "" or NULL takes it away. Nothing happens
 * when stdout is no terminal. For progress.c. */
void log_status(const char *line);

#define log_error(...) log_print(LOG_ERROR, __VA_ARGS__) /* stderr, "error: ..." */
#define log_warn(...)  log_print(LOG_WARN, __VA_ARGS__)  /* stderr, "warning: ..." */
#define log_info(...)  log_print(LOG_INFO, __VA_ARGS__)  /* stdout, as it is */
#define log_debug(...) log_print(LOG_DEBUG, __VA_ARGS__) /* stderr */

#endif

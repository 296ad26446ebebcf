/* text.h - small questions about text: is it UTF-8, and which known name was meant. */
#ifndef RLHF_BASE_TEXT_H
#define RLHF_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the well-formed UTF-8 character at s (n > 0 bytes are there); 0 when there is none. */
size_t text_utf8_length(const char *s, size_t n);
bool text_is_utf8(const char *s, size_t n);

/* Looks for the known name nearest to a mistyped one: text_nearest_init(&f, "learning_rat"), then
 * text_nearest_try for each known name (borrowed); `found` is the best, NULL when none is near. */
typedef struct {
    const char *word, *found;
    int distance;
} TextNearest;
void text_nearest_init(TextNearest *f, const char *word);
void text_nearest_try(TextNearest *f, const char *known);

#endif

/* text.c - UTF-8 validity and the nearest name. Tested by tests/unit/test_base.c. */
#include "common/base/text.h"

#include <string.h>

/* The Unicode Standard 15, table 3-7: no surrogates, no overlong forms, nothing above U+10FFFF. */
size_t text_utf8_length(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char low = 0x80, high = 0xBF; /* limits of the second byte */
    size_t need;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        need = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        need = 3;
        low = s[0] == 0xE0 ? 0xA0 : 0x80;
        high = s[0] == 0xED ? 0x9F : 0xBF;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        need = 4;
        low = s[0] == 0xF0 ? 0x90 : 0x80;
        high = s[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (n < need || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < need; i++) {
        if (s[i] < 0x80 || s[i] > 0xBF)
            return 0;
    }
    return need;
}

bool text_is_utf8(const char *s, size_t n)
{
    while (n) {
        size_t len = text_utf8_length(s, n);
        if (!len)
            return false;
        s += len;
        n -= len;
    }
    return true;
}

enum { NAME_MAX_BYTES = 63 };

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Insertions, deletions, replacements and swaps of neighbours between two names. */
static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    int d[3][NAME_MAX_BYTES + 1]; /* rows i - 2, i - 1, i */
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = d[i % 3], *above = d[(i + 2) % 3], *above2 = d[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < row[j])
                row[j] = above2[j - 2] + 1;
        }
    }
    return d[n % 3][m];
}

void text_nearest_init(TextNearest *f, const char *word)
{
    int near = (int)strlen(word) / 3;
    *f = (TextNearest){.word = word, .distance = (near < 1 ? 1 : near > 3 ? 3 : near) + 1};
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

void text_nearest_try(TextNearest *f, const char *known)
{
    if (strlen(f->word) > NAME_MAX_BYTES || strlen(known) > NAME_MAX_BYTES)
        return;
    int distance = edit_distance(f->word, known);
    /* "learning_rate" for "optim.learning_rate": the right name in the wrong group */
    if (strcmp(last_part(f->word), last_part(known)) == 0 && distance > 1)
        distance = 1;
    if (distance < f->distance) {
        f->distance = distance;
        f->found = known;
    }
}

/* record_fields.c - the fields of a record that stand beside its texts: ratings, labels, id, tags.
 *
 * Tested by tests/unit/test_record.c. */
#include "common/data/record_impl.h"

#include "common/base/error.h"

#include <math.h>
#include <string.h>

int record_read_bool(RowPlace *p, const Json *j, const char *name, SafetyLabel *out)
{
    const Json *v = json_field(j, name);
    if (!v)
        return 0;
    if (json_kind(v) != JSON_BOOLEAN)
        return row_error(p, FAULT_OTHER, name, "found %s, expected true or false",
                         json_kind_name(json_kind(v)));
    *out = json_bool(v, false) ? SAFETY_SAFE : SAFETY_UNSAFE;
    return 0;
}

int record_read_rating(Record *r, RowPlace *p, const Json *j)
{
    int rc;
    const Json *v = json_field(j, "strength");
    r->strength = STRENGTH_UNKNOWN;
    if (v) {
        int s = 0;
        while (s < STRENGTH_COUNT &&
               !(json_str(v) && !strcmp(json_str(v), strength_name((Strength)s))))
            s++;
        if (s == STRENGTH_COUNT)
            return row_error(p, FAULT_OTHER, "strength",
                             "found %s%.40s%s, expected significant, better, slight, "
                             "negligible, unsure or unknown",
                             json_str(v) ? "'" : "",
                             json_str(v) ? json_str(v) : json_kind_name(json_kind(v)),
                             json_str(v) ? "'" : "");
        r->strength = (Strength)s;
    }
    if ((v = json_field(j, "margin"))) {
        r->margin = json_num(v, NAN);
        if (!isfinite(r->margin))
            return row_error(p, FAULT_OTHER, "margin", "found %s, expected a number",
                             json_kind_name(json_kind(v)));
    }
    if ((rc = record_read_bool(p, j, "chosen_safe", &r->safety[0])) < 0)
        return rc;
    return record_read_bool(p, j, "rejected_safe", &r->safety[1]);
}

int record_read_common(Record *r, RowPlace *p, const Json *j)
{
    const Json *v = json_field(j, "id");
    const Json *const texts[] = {v, json_field(j, "source")};
    for (int i = 0; i < 2; i++)
        if (json_str(texts[i]) && strlen(json_str(texts[i])) != json_str_len(texts[i]))
            return row_error(p, FAULT_OTHER, i ? "source" : "id",
                             "holds a NUL character (\\u0000)");
    if (json_kind(v) == JSON_STR)
        r->id_text = xstrdup(json_str(v));
    else if (json_kind(v) == JSON_INT)
        r->id_text = xasprintf("%lld", (long long)json_int(v, 0));
    else if (v)
        return row_error(p, FAULT_OTHER, "id", "found %s, expected a string or an integer",
                         json_kind_name(json_kind(v)));
    if ((v = json_field(j, "tags"))) {
        if (json_kind(v) != JSON_ARR)
            return row_error(p, FAULT_OTHER, "tags",
                             "found %s, expected a list such as [\"safety\"]",
                             json_kind_name(json_kind(v)));
        for (size_t i = 0; i < json_len(v); i++) {
            const char *tag = json_str(json_at(v, i));
            if (!tag)
                return row_error(p, FAULT_OTHER, "tags", "entry %zu is no string", i + 1);
            r->tagged |= !strcmp(tag, "safety");
        }
    }
    if ((v = json_field(j, "weight"))) {
        r->weight = json_num(v, NAN);
        if (!(r->weight > 0 && isfinite(r->weight)))
            return row_error(p, FAULT_OTHER, "weight", "found %s, expected a number above 0",
                             isnan(r->weight) ? json_kind_name(json_kind(v)) : "one that is not");
    }
    if ((v = json_field(j, "source"))) {
        if (!json_str(v))
            return row_error(p, FAULT_OTHER, "source", "found %s, expected a string",
                             json_kind_name(json_kind(v)));
        r->source = xstrdup(json_str(v));
    }
    if (json_len(json_field(j, "tools")) || json_len(json_field(j, "tool_calls")))
        return row_error(p, FAULT_OTHER, json_len(json_field(j, "tools")) ? "tools" : "tool_calls",
                         "tools are not supported; remove the row");
    return 0;
}

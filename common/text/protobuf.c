/* protobuf.c - the wire format: a field is a varint (number << 3 | type), then its value.
 * Tested by tests/unit/test_sentencepiece.c and tests/fuzz. */
#include "common/text/protobuf.h"

#include "common/base/error.h"

#include <string.h>

PbMessage pb_message(const void *data, size_t n)
{
    return (PbMessage){data, data, (const unsigned char *)data + n};
}

static int fail_at(const PbMessage *m, const unsigned char *at, const char *what)
{
    return error_set(ERR_DATA, "byte %zu: %s", (size_t)(at - m->file), what);
}

static int read_varint(PbMessage *m, uint64_t *out)
{
    const unsigned char *from = m->at;
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (m->at == m->end)
            return fail_at(m, from, "a number is cut off");
        *out |= (uint64_t)(*m->at & 0x7F) << shift;
        if (!(*m->at++ & 0x80))
            return 0;
    }
    return fail_at(m, from, "a number of more than ten bytes");
}

static int read_fixed(PbMessage *m, uint64_t *out, size_t n)
{
    *out = 0;
    if ((size_t)(m->end - m->at) < n)
        return fail_at(m, m->at, "a number is cut off");
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)m->at[i] << (8 * i);
    m->at += n;
    return 0;
}

static int read_bytes(PbMessage *m, PbMessage *out)
{
    const unsigned char *from = m->at;
    uint64_t n;
    int rc = read_varint(m, &n);
    if (rc < 0)
        return rc;
    if (n > (uint64_t)(m->end - m->at))
        return fail_at(m, from, "a field is longer than what is left of its message");
    *out = (PbMessage){m->file, m->at, m->at + n};
    m->at += n;
    return 0;
}

int pb_next(PbMessage *m, PbField *f)
{
    const unsigned char *from = m->at;
    uint64_t key;
    int rc;
    if (m->at == m->end)
        return 0;
    if ((rc = read_varint(m, &key)) < 0)
        return rc;
    *f = (PbField){.number = (uint32_t)(key >> 3), .type = (PbType)(key & 7),
                   .place = (size_t)(from - m->file)};
    if (key >> 3 == 0 || key >> 3 >= 1u << 29)
        return fail_at(m, from, "not a field number; this is no Protocol Buffers file");
    switch (f->type) {
    case PB_VARINT:
        rc = read_varint(m, &f->value);
        break;
    case PB_FIXED64:
        rc = read_fixed(m, &f->value, 8);
        break;
    case PB_FIXED32:
        rc = read_fixed(m, &f->value, 4);
        break;
    case PB_BYTES:
        rc = read_bytes(m, &f->bytes);
        break;
    default:
        return fail_at(m, from, "not a field type; this is no Protocol Buffers file");
    }
    return rc < 0 ? rc : 1;
}

float pb_float(const PbField *f)
{
    uint32_t bits = (uint32_t)f->value;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

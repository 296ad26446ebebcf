/* protobuf.h - reads the wire format of Protocol Buffers, as far as tokenizer.model needs it: fields one
 * after another; what is unknown is skipped by the caller. No field may reach beyond its message. */
#ifndef RLHF_TEXT_PROTOBUF_H
#define RLHF_TEXT_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 } PbType;

typedef struct {
    const unsigned char *file; /* what places in messages are counted from */
    const unsigned char *at, *end;
} PbMessage;

typedef struct {
    uint32_t number;
    PbType type;
    uint64_t value;  /* of the numeric types */
    PbMessage bytes; /* PB_BYTES: the content, itself a message or a text */
    size_t place;    /* of the field in the file */
} PbField;

PbMessage pb_message(const void *data, size_t n);
/* 1: *f is the next field; 0: none is left; ERR_DATA: "byte 12: ..." says what is broken. */
int pb_next(PbMessage *m, PbField *f);
float pb_float(const PbField *f); /* of PB_FIXED32 */

#endif

/* record.h - one training or evaluation record, whatever its file calls the fields.
 *
 * Accepted per object of a .jsonl file or JSON array (.gz, .zst), TRL's names first:
 *   text        {text}
 *   prompt      {prompt}, or a preference or SFT record without its answer
 *   sft         {messages}, {prompt, completion}, {conversations}
 *   pair        {prompt, chosen, rejected}, {chosen, rejected} with the prompt inside both
 *               + strength: "significant|better|slight|negligible|unsure|unknown", margin: number,
 *                 chosen_safe, rejected_safe: bool
 *   labelled    {prompt, response|completion, is_safe|label}; the prompt may stand inside a
 *               conversation instead. TRL's unpaired preferences come in here: label true = safe
 * Instead of prompt: conversations (ShareGPT), or instruction with input and history (Alpaca), both
 * with an optional system; instead of completion: response or Alpaca's output. And for all: id
 * (string or integer), tags ["safety"], weight, source. Other fields are ignored, null counts as
 * absent; tools and tool_calls are refused.
 *
 * A conversation is a list of {role, content} or {from, value}, a single such object, or a
 * transcript "\n\nHuman: ...\n\nAssistant: ..."; any other string is one message of the user
 * (prompt) or the assistant (answers). content is a string or a list of text parts. The prompt
 * inside both answers of a pair is their longest common start in whole messages (in whole words, if
 * both are plain strings), and one message of the assistant must remain on each side. Roles
 * alternate, user first, after an optional system message (an empty one is left out). */
#ifndef RLHF_DATA_RECORD_H
#define RLHF_DATA_RECORD_H

#include "common/base/json.h"
#include "common/text/template.h"

typedef enum { RECORD_TEXT, RECORD_PROMPT, RECORD_SFT, RECORD_PAIR, RECORD_LABELLED } RecordKind;
typedef enum { STRENGTH_SIGNIFICANT, STRENGTH_BETTER, STRENGTH_SLIGHT, STRENGTH_NEGLIGIBLE,
               STRENGTH_UNSURE, STRENGTH_UNKNOWN, STRENGTH_COUNT } Strength;
typedef enum { SAFETY_UNKNOWN, SAFETY_SAFE, SAFETY_UNSAFE } SafetyLabel;

typedef struct {
    RecordKind kind;
    const char *file; /* borrowed from the RecordSet */
    int64_t line;
    uint64_t id;         /* hash of "id" if given, else prompt_hash */
    char *id_text;       /* as in the file, or NULL */
    uint64_t prompt_hash; /* XXH3-64 over roles and texts of the prompt, blanks at both ends left out:
                             splits and overlap. SFT: what stands before the last answer */
    Message *messages;   /* prompt messages; for RECORD_SFT the whole conversation */
    int n_messages;
    int n_context;       /* SFT: messages before this one are not trained on: the prompt of {prompt,
                            completion}, as TRL has it; 0 for {messages}: every answer is trained on */
    char *text[2];       /* TEXT: [0]; PAIR: chosen, rejected; LABELLED: response in [0] */
    SafetyLabel safety[2];
    Strength strength;
    double margin;       /* NaN unless given */
    double weight;       /* 1 unless given */
    bool tagged;         /* tags hold "safety" */
    char *source;        /* NULL unless given */
} Record;

typedef struct {
    Record *at;
    int64_t n, cap;
    int64_t n_bad;       /* skipped under on_bad_row: skip */
    char **files;
    int n_files;
} RecordSet;

typedef enum { BAD_ROW_ERROR, BAD_ROW_SKIP } BadRow; /* "error|skip" */

/* One JSON object -> record of the wanted kind. ERR_DATA with place and the field at fault:
 * missing field, wrong type, empty answer, identical chosen and rejected, unknown role, ... */
int record_parse(Record *r, const Json *j, RecordKind want, const char *file, int64_t line);

/* The same of a row whose text is at hand, so that the place has a column; `fault` says what was
 * wrong, for importers that count some faults instead of reporting them. */
typedef enum { FAULT_NONE, FAULT_EMPTY, FAULT_IDENTICAL, FAULT_NO_COMMON_PROMPT, FAULT_OTHER } RecordFault;
int record_parse_at(Record *r, const Json *j, RecordKind want, const JsonSource *from, RecordFault *fault);
/* The kind that the fields of an object speak of. */
RecordKind record_kind_of(const Json *j);
const char *record_kind_name(RecordKind kind);
void record_free(Record *r);
/* Writes the canonical form of a record as one JSON line (without the newline). */
void record_write(const Record *r, Str *out);

/* Appends all records of a file. Counts go to the set; the caller logs them. A file without a single
 * good record is ERR_DATA. */
int record_set_read(RecordSet *s, const char *path, RecordKind want, BadRow on_bad);
void record_set_free(RecordSet *s);

const char *strength_name(Strength s);
/* Llama 2, table 27. kinds "none|small|large". UNSURE and UNKNOWN have margin 0. */
typedef enum { MARGIN_NONE, MARGIN_SMALL, MARGIN_LARGE } MarginKind;
double strength_margin(Strength s, MarginKind kind);

/* ERR_DATA naming both places when a prompt of `b` also stands in `a`. */
int record_check_overlap(const RecordSet *a, const char *a_name, const RecordSet *b, const char *b_name);

/* A set of prompt hashes kept in a file beside each stage's run, so that the check spans stages:
 * prompts.bin holds 8 bytes "prompts1", their number, their XXH3-64, then the hashes ascending, each
 * once; all u64, little endian. */
int prompt_hashes_write(const char *path, const RecordSet *s);
int prompt_hashes_check(const char *path, const RecordSet *held_out, const char *held_out_name);

#endif

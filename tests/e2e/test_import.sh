#!/usr/bin/env bash
# rlhf import as a user has it: pipes, names that lie, the report in both forms, what it refuses, and that
# the programs read what it writes. Its rows are in tests/unit/test_import.c.
. "$(dirname "$0")/lib.sh"
tiny_world
I=$TMP/import; mkdir -p "$I"
IMPORT=("$BIN/rlhf" import)

for i in 1 2 3 4 5 6; do
    echo "{\"history\": \"copy a b c $i\", \"human_ref_A\": \"a b c\", \"human_ref_B\": \"c b a\", \"labels\": 1, \"score_ratio\": $i.5}"
done >"$I/shp.jsonl"
gzip -c "$I/shp.jsonl" >"$I/shp.gz"
check "import" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/a.jsonl" report="$I/a.report.json"
cp "$TMP/check.log" "$I/a.txt"
check "text: what was read and kept" sh -c "grep -qx 'read      6' $I/a.txt && grep -qx 'kept      6 preference records' $I/a.txt &&
    grep -qE '^  better +3 +50.0 %  #{20}$' $I/a.txt"
check "JSON: the same" sh -c "grep -qx '  \"read\": 6,' $I/a.report.json && grep -qx '    \"better\": 3,' $I/a.report.json"
check "from standard input to standard output" sh -c "zcat $I/shp.gz | $BIN/rlhf import shp - - >$I/b.jsonl 2>$I/b.txt"
same "the same records" "$I/a.jsonl" "$I/b.jsonl"
check "the report on standard error" grep -qx 'shp: standard input' "$I/b.txt"
check "gzip from standard input" sh -c "$BIN/rlhf import shp - $I/c.jsonl.zst <$I/shp.gz >/dev/null"
check "records of records, packed" "${IMPORT[@]}" ours "$I/c.jsonl.zst" "$I/d.jsonl"
same "nothing changes" "$I/a.jsonl" "$I/d.jsonl"
cp "$I/c.jsonl.zst" "$I/lies.json"
check "zstd under another name" "${IMPORT[@]}" ours "$I/lies.json" "$I/d.jsonl"
same "nothing changes under another name" "$I/a.jsonl" "$I/d.jsonl"
{ printf '['; paste -sd, "$I/shp.jsonl"; printf ']'; } >"$I/array.json"
check "one array" "${IMPORT[@]}" shp "$I/array.json" "$I/e.jsonl"
same "the array's records" "$I/a.jsonl" "$I/e.jsonl"
check "levels and a threshold from the command line" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/f.jsonl" levels=[6,3,2] min_rating=2
check "strengths follow" sh -c "test \$(grep -c '\"strength\": \"significant\"' $I/f.jsonl) = 1 && test \$(wc -l <$I/f.jsonl) = 5"
check "held out and the rest" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/g.jsonl" held_out="$I/h.jsonl" held_out_every=2
sort "$I/a.jsonl" >"$I/all.sorted"; sort "$I/g.jsonl" "$I/h.jsonl" >"$I/sides.sorted"
same "both sides are everything" "$I/all.sorted" "$I/sides.sorted"
check "neither side is empty" sh -c "test -s $I/g.jsonl && test -s $I/h.jsonl"
check "against what was held out" sh -c "'$BIN/rlhf' import shp $I/shp.jsonl $I/i.jsonl against=$I/h.jsonl >/dev/null"
same "leaves the rest" "$I/g.jsonl" "$I/i.jsonl"
check "--dry-run" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/none.jsonl" report="$I/none.json" --dry-run
check "--dry-run writes nothing" sh -c "test ! -e $I/none.jsonl && test ! -e $I/none.json"
check "list" sh -c "$BIN/rlhf import list | grep -q '^reward-bench '"

echo '{"history": 7}' >"$I/bad.jsonl"
refuses "an unknown format" 2 "'shq' \\(did you mean 'shp'\\?\\)" "${IMPORT[@]}" shq "$I/shp.jsonl" "$I/x"
refuses "too few arguments" 2 "expected FORMAT IN OUT, found 2" "${IMPORT[@]}" shp "$I/shp.jsonl"
refuses "no such file" 66 "none.jsonl: cannot be opened" "${IMPORT[@]}" shp "$I/none.jsonl" "$I/x"
refuses "a folder that is not there" 73 "cannot be created" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/none/x"
refuses "a bad row, by its place" 65 "bad.jsonl:1:1: labels: missing" "${IMPORT[@]}" shp "$I/bad.jsonl" "$I/x"
refuses "nothing to keep" 65 "none of 1 rows could be kept as shp; .* The first: .*bad.jsonl:1:1" "${IMPORT[@]}" shp "$I/bad.jsonl" "$I/x" on_bad_row=skip
refuses "an option that says nothing here" 78 "task: shp holds one preference" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/x" task=safety
refuses "one name for two files" 78 "held_out: .* is OUT as well" "${IMPORT[@]}" shp "$I/shp.jsonl" "$I/x" held_out="$I/x" held_out_every=2
check "nothing is left of what was refused" sh -c "test ! -e $I/x && test ! -e $I/x.tmp"

check "a reward model trains on it" "$BIN/rlhf-reward" train model="$W/sft/export" template=plain max_length=64 batch_size=4 max_steps=1 \
    micro_batch_tokens=1024 margin=large "data.train=[{path: $I/a.jsonl}]" out_dir="$I/rm"
finish

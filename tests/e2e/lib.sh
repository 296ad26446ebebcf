# lib.sh - sourced by the scripts of this folder: counting, exit codes, kills, and a tiny world.
#
# A script prints `ok NAME`, `not ok NAME: why` or `skip NAME: why` per check and calls finish, which
# prints `N passed, N failed, N skipped`. BUILD is the build folder, TMP a scratch folder of its own.
set -u
BUILD=${BUILD:-build}
BIN=$(cd "$BUILD/bin" && pwd)
TMP=${TMP:-$(mktemp -d)}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SHARED=$ROOT/../shared
mkdir -p "$TMP"
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); echo "ok $1"; }
not_ok() { failed=$((failed + 1)); echo "not ok $1: ${2:-}"; }
skip() { skipped=$((skipped + 1)); echo "skip $1: ${2:-}"; }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; exit $?; }

# check NAME COMMAND...: passes when the command exits 0
check() {
    local name=$1; shift
    if "$@" >"$TMP/check.log" 2>&1; then ok "$name"; else not_ok "$name" "exit $?: $(tail -n 2 "$TMP/check.log" | tr '\n' ' ')"; fi
}

# refuses NAME CODE PATTERN COMMAND...: the exit code, and one line on stderr that matches
refuses() {
    local name=$1 code=$2 pattern=$3 rc lines; shift 3
    "$@" >"$TMP/refuse.out" 2>"$TMP/refuse.err" </dev/null; rc=$?
    lines=$(wc -l <"$TMP/refuse.err")
    if [ "$rc" != "$code" ]; then not_ok "$name" "exit $rc instead of $code: $(head -n 2 "$TMP/refuse.err" | tr '\n' ' ')"
    elif ! grep -qE -- "$pattern" "$TMP/refuse.err"; then not_ok "$name" "no '$pattern' in: $(head -n 2 "$TMP/refuse.err" | tr '\n' ' ')"
    elif [ "$lines" != 1 ]; then not_ok "$name" "$lines lines instead of one: $(head -n 3 "$TMP/refuse.err" | tr '\n' ' ')"
    else ok "$name"; fi
}

# same NAME FILE FILE: equal bytes
same() { if cmp -s "$2" "$3"; then ok "$1"; else not_ok "$1" "$2 and $3 differ"; fi; }

# last value of KEY in a metrics.jsonl
metric() { grep -o "\"$2\": *[-0-9.e+]*" "$1" | tail -n 1 | sed 's/.*: *//'; }
first_metric() { grep -o "\"$2\": *[-0-9.e+]*" "$1" | head -n 1 | sed 's/.*: *//'; }
# compares NAME "A op B": arithmetic of awk
compares() { if awk "BEGIN { exit !($2) }"; then ok "$1"; else not_ok "$1" "$2 does not hold"; fi; }

# kills NAME COUNT OUT_DIR COMMAND...: runs the command to the end COUNT times, each time with a kill -9
# at another moment and then resumed until it is done; the exported weights must be those of OUT_DIR.ref.
# The command must take out_dir=DIR at its end.
kills() {
    local name=$1 count=$2 ref=$3 span i pid tries bad=0 hit=0; shift 3
    local t0 t1; t0=$(date +%s%N)
    "$@" out_dir="$TMP/timing" >/dev/null 2>&1; t1=$(date +%s%N); rm -rf "$TMP/timing"
    span=$(((t1 - t0) / 1000000 + 1))
    for i in $(seq 1 "$count"); do
        local dir="$TMP/killed"; rm -rf "$dir"
        # moments spread evenly over the run, and not the same from one script run to the next machine
        local at=$(((span * (2 * i - 1)) / (2 * count)))
        "$@" out_dir="$dir" --resume auto >/dev/null 2>&1 & pid=$!
        sleep "$(awk "BEGIN { print $at / 1000 }")"
        kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
        [ $? = 137 ] && hit=$((hit + 1))
        tries=0
        until "$@" out_dir="$dir" --resume auto >"$TMP/resume.log" 2>&1; do
            tries=$((tries + 1)); [ $tries -lt 3 ] || break
        done
        for f in export/model.safetensors metrics.jsonl; do
            [ -e "$ref/$f" ] || continue
            cmp -s "$ref/$f" "$dir/$f" || { bad=$((bad + 1)); echo "# kill $i at $at of $span ms: $f differs; $(tail -n 1 "$TMP/resume.log")"; }
        done
    done
    if [ $bad != 0 ]; then not_ok "$name" "$bad differences"
    elif [ $hit = 0 ]; then not_ok "$name" "every one of $count runs was over before its kill"
    else ok "$name ($hit of $count runs were killed)"; fi
}

# kills_at_files NAME REF "FILES" COMMAND...: like kills, but exact: at operations on files spread evenly
# over the run (KILL_POINTS of them; every one with LONG) the program is killed, or the disk is full from
# there on. Resumed, FILES must be those of REF, and nothing half-written may be left.
KILL_POINTS=5; [ -n "${CHECK:-}" ] && KILL_POINTS=40
kills_at_files() {
    local name=$1 ref=$2 files=$3 dir="$TMP/at" n every i how f rc bad=0 kills=0 fulls=0; shift 3
    case $BUILD in *san-*) skip "$name" "a sanitizer must be loaded first"; return ;; esac
    ${CC:-cc} -D_GNU_SOURCE -shared -fPIC "$ROOT/tests/e2e/kill_at.c" -o "$TMP/kill_at.so" -ldl
    rm -rf "$TMP/count_run"
    COUNT_FILE=$TMP/count LD_PRELOAD=$TMP/kill_at.so "$@" out_dir="$TMP/count_run" >/dev/null 2>&1
    n=$(cat "$TMP/count"); every=$((n / KILL_POINTS)); { [ -n "${LONG:-}" ] || [ $every = 0 ]; } && every=1
    for i in $(seq $((every / 2 + 1)) $every "$n"); do
        for how in KILL_AT FULL_AT; do
            rm -rf "$dir"
            env $how="$i" LD_PRELOAD="$TMP/kill_at.so" "$@" out_dir="$dir" --resume auto >/dev/null 2>"$TMP/at.err" & wait $! 2>/dev/null; rc=$?
            if [ $how = KILL_AT ]; then
                kills=$((kills + 1)); [ $rc = 137 ] || { bad=$((bad + 1)); echo "# $how $i: exit $rc"; }
            else
                fulls=$((fulls + 1))
                [ $rc = 0 ] || { [ $rc = 73 ] && [ "$(wc -l <"$TMP/at.err")" = 1 ]; } ||
                    { bad=$((bad + 1)); echo "# $how $i: exit $rc: $(head -n 2 "$TMP/at.err" | tr '\n' ' ')"; }
            fi
            "$@" out_dir="$dir" --resume auto >"$TMP/at.log" 2>&1 || { bad=$((bad + 1)); echo "# $how $i, resumed: $(tail -n 1 "$TMP/at.log")"; }
            for f in $files; do
                cmp -s "$ref/$f" "$dir/$f" || { bad=$((bad + 1)); echo "# $how $i: $f differs"; }
            done
            [ -z "$(find "$dir" -name '*.tmp' -o -name '*.old')" ] || { bad=$((bad + 1)); echo "# $how $i: leftovers"; }
        done
    done 2>/dev/null
    [ $bad = 0 ] && ok "$name ($kills kills and $fulls full disks at $n places)" || not_ok "$name" "$bad faults"
}
KILLS=2; [ -n "${CHECK:-}" ] && KILLS=20

# kills_in PROGRAM REF "FILES" PHASES COMMAND...: kill -9 in named phases of a run, by kill_in.c. A line of
# PHASES is "OUTER INNER WHAT"; the moments are the n-th INNER inside OUTER, n drawn from SEED_KILLS. Resumed,
# FILES must be those of REF, the events (which hold wall times) as long, and nothing half-written left. Five kills a phase with CHECK, else one in
# each of the first two. Where ptrace is forbidden: kills at moments spread over time.
SEED_KILLS=${SEED_KILLS:-1}
KILLS_EACH=1; [ -n "${CHECK:-}" ] && KILLS_EACH=5
function_at() { case $1 in -|syscall) echo "$1" ;; *) nm "$2" | awk -v f="$1" '$3 == f { print $1 }' ;; esac; }
kills_in() {
    local program=$1 ref=$2 files=$3 phases=$4 dir="$TMP/in" i n total hit bad rc f outer inner what of; shift 4
    ${CC:-cc} -D_GNU_SOURCE "$ROOT/tests/e2e/kill_in.c" -o "$TMP/kill_in"
    if ! "$TMP/kill_in" 0 - syscall true >/dev/null 2>"$TMP/in.err"; then
        skip "$program: kills in named phases" "$(head -n 1 "$TMP/in.err")"
        kills "$program: kill -9 and resume" $((KILLS_EACH * 4)) "$ref" "$@"
        return
    fi
    [ -n "${CHECK:-}" ] || phases=$(echo "$phases" | head -n 2)
    while read -r outer inner what; do
        of=$(function_at "$outer" "$1") n=$(function_at "$inner" "$1") hit=0 bad=0
        [ -n "$of" ] && [ -n "$n" ] || { not_ok "$program: killed $what" "no $outer or $inner in $1"; continue; }
        inner=$n
        rm -rf "$dir"; total=$("$TMP/kill_in" 0 "$of" "$inner" "$@" out_dir="$dir" 2>/dev/null </dev/null)
        for i in $(seq 1 $KILLS_EACH); do
            n=$(($(echo "$SEED_KILLS $program $what $i" | cksum | cut -d ' ' -f 1) % (total > 0 ? total : 1) + 1))
            rm -rf "$dir"
            "$TMP/kill_in" "$n" "$of" "$inner" "$@" out_dir="$dir" --resume auto >"$TMP/in.log" 2>&1 </dev/null; rc=$?
            [ $rc = 137 ] && hit=$((hit + 1))
            "$@" out_dir="$dir" --resume auto >"$TMP/in.log" 2>&1 </dev/null || { bad=$((bad + 1)); echo "# kill $n of $total $what, resumed: $(tail -n 1 "$TMP/in.log")"; }
            for f in $files; do
                cmp -s "$ref/$f" "$dir/$f" || { bad=$((bad + 1)); echo "# kill $n of $total $what: $f differs"; }
            done
            f=events.out.tfevents
            [ "$(stat -c %s "$ref/$f")" = "$(stat -c %s "$dir/$f")" ] || { bad=$((bad + 1)); echo "# kill $n of $total $what: $f has another size"; }
            [ -z "$(find "$dir" -name '*.tmp' -o -name '*.old')" ] || { bad=$((bad + 1)); echo "# kill $n of $total $what: leftovers"; }
        done
        if [ $hit = $KILLS_EACH ] && [ $bad = 0 ]; then ok "$program: killed $hit of $KILLS_EACH $what ($total moments, seed $SEED_KILLS)"
        else not_ok "$program: killed $hit of $KILLS_EACH $what" "$bad differences ($total moments, seed $SEED_KILLS)"; fi
    done <<<"$phases"
}

# drop_markers A B: a barely trained model samples markers of the template, which training refuses as
# text; drops the prompts where one of the two answers holds one.
drop_markers() {
    paste "$1" "$2" | grep -v -e 'Human:' -e 'Assistant:' >"$1.both" &&
        cut -f 1 "$1.both" >"$1" && cut -f 2 "$1.both" >"$2" && rm "$1.both"
}

# tiny_world: a generated world, an SFT model and both reward models, all barely trained in $DTYPE, in
# $TMP/tiny. Made once per script; a second later a program can run on them.
DTYPE=${DTYPE:-f32}
tiny_world() {
    W=$TMP/tiny
    [ -e "$W/safety/export/model.safetensors" ] && return 0
    local log=$TMP/tiny.log
    "$BIN/rlhf-demo" world "$W/world" n_base=256 n_sft=96 n_helpful=96 n_safety=96 n_test=64 \
        n_rejection=24 n_ppo=48 n_eval=24 hidden_size=32 layers=2 seed=5 >"$log" 2>&1 &&
    "$BIN/rlhf-sft" out_dir="$W/sft" model="$W/world/model" init=random template=plain max_length=64 \
        "data.train=[{path: $W/world/sft.jsonl}]" epochs=4 batch_size=16 optim.learning_rate=5e-3 \
        micro_batch_tokens=1024 unit_tokens=128 seed=3 dtype="$DTYPE" >>"$log" 2>&1 &&
    "$BIN/rlhf" generate model="$W/sft/export" data.prompts="$W/world/prompts_pairs.jsonl" template=plain \
        temperature=0.8 round=1 dtype="$DTYPE" max_prompt_length=40 max_new_tokens=12 --out "$W/a.jsonl" >>"$log" 2>&1 &&
    "$BIN/rlhf" generate model="$W/sft/export" data.prompts="$W/world/prompts_pairs.jsonl" template=plain \
        temperature=1.2 round=2 dtype="$DTYPE" max_prompt_length=40 max_new_tokens=12 --out "$W/b.jsonl" >>"$log" 2>&1 &&
    drop_markers "$W/a.jsonl" "$W/b.jsonl" &&
    "$BIN/rlhf-demo" annotate "a=[$W/a.jsonl]" "b=[$W/b.jsonl]" out="$W/pairs" seed=5 >>"$log" 2>&1 &&
    "$BIN/rlhf-reward" train out_dir="$W/helpful" "data.train=[{path: $W/pairs/helpful.jsonl}]" \
        "data.eval=[{path: $W/pairs/helpful_test.jsonl}]" "${REWARD[@]}" >>"$log" 2>&1 &&
    "$BIN/rlhf-reward" train out_dir="$W/safety" "data.train=[{path: $W/pairs/safety.jsonl}]" \
        "data.eval=[{path: $W/pairs/safety_test.jsonl}]" safety_loss.weight=1 "${REWARD[@]}" >>"$log" 2>&1 ||
        { not_ok tiny_world "$(tail -n 3 "$log" | tr '\n' ' ')"; finish; }
}
REWARD=(model="$TMP/tiny/sft/export" template=plain max_length=64 batch_size=16 micro_batch_tokens=1024 unit_tokens=128
        optim.learning_rate=3e-3 seed=3 dtype="$DTYPE")

#!/usr/bin/env bash
# The benchmark runs, writes what it says, and joins a peer's rows. No time is looked at.
. "$(dirname "$0")/lib.sh"
BENCH=$(cd "$BUILD/tests" && pwd)/bench

check "bench --quick" "$BENCH" --quick --out "$TMP/b" --threads 1,2
for row in "ceiling fma plain" "ceiling read 1 MiB"; do
    compares "$row with one and two threads" "$(grep -cF "\"name\": \"$row\"," "$TMP/b/bench.jsonl") == 2"
done
for row in "sft tiny 4x24" "reward tiny 4x24" "decode tiny B=1 16+16" "decode tiny B=4 16+16" \
           "shared tiny 4 on one prompt 16+16" "ppo rollout tiny 4x(16+16)" "ppo iteration tiny 4x(16+16)"; do
    for dtype in f32 bf16; do
        n=$(grep -F "\"name\": \"$row\"," "$TMP/b/bench.jsonl" | grep -cF "\"dtype\": \"$dtype\"")
        compares "$row, $dtype, with one and two threads" "$n == 2"
    done
done
compares "text to ids" "$(grep -c '"name": "encode .*"unit": "MB/s"' "$TMP/b/bench.jsonl") == 4"
compares "no roof is passed by far" "$(grep '"threads": 1,' "$TMP/b/bench.jsonl" | grep -o '"fraction": [0-9.e+-]*' | cut -d: -f2 | sort -g | tail -n 1) < 3"
compares "a bar for every row with a roof" "$(grep -c '<rect x' "$TMP/b/bench.svg") == $(grep -c '"roof"' "$TMP/b/bench.jsonl")"
# a peer that is twice as slow
grep -E '"(sft|reward) tiny|ppo iteration' "$TMP/b/bench.jsonl" | grep '"threads": 1,.*"f32"' |
    sed -E 's/.*("name": "[^"]*").*("unit": "[^"]*").*"median": ([^,]*),.*/\1 \2 \3/' | while read -r line; do
        v=${line##* }
        case $line in *'"unit": "s"'*) v=$(awk "BEGIN { printf \"%.9g\", 2 * $v }") ;; *) v=$(awk "BEGIN { printf \"%.9g\", $v / 2 }") ;; esac
        printf '%s\n' "$line" | sed -E "s/^(.*\") (\"unit.*\") [^ ]*$/{\1, \"threads\": 1, \2, \"median\": $v, \"variant\": \"torch f32\"}/"
    done >"$TMP/peer.jsonl"
"$BENCH" --from "$TMP/b/bench.jsonl" --peer "$TMP/peer.jsonl" >"$TMP/joined.txt"
# a bf16 row, which is compared too, may be 2.00 times as fast by chance
compares "ratios to a peer" "$(grep -cE ' f32 +1 .* 2\.00x  floor .* met' "$TMP/joined.txt") == 3"
sed 's/torch/llama.cpp/' "$TMP/peer.jsonl" >"$TMP/other.jsonl"
"$BENCH" --from "$TMP/b/bench.jsonl" --peer "$TMP/other.jsonl" >"$TMP/other.txt"
compares "floors are against PyTorch" "$(grep -cE ' f32 +1 llama.cpp f32 .* 2\.00x$' "$TMP/other.txt") == 3 && $(grep -c floor "$TMP/other.txt") == 0"
check "rows of a profile alone" "$BENCH" --quick --only steps --match reward --threads 1 --dtypes f32 --out "$TMP/m"
compares "--match, --dtypes" "$(grep -c sft "$TMP/m/bench.jsonl") == 0 && $(grep -c reward "$TMP/m/bench.jsonl") == 1"
check "steps with activations computed again" "$BENCH" --quick --only steps --threads 1 --recompute none,layer --out "$TMP/r"
compares "--recompute" "$(grep -c '4x24 layer"' "$TMP/r/bench.jsonl") == 4 && $(grep -c '4x24"' "$TMP/r/bench.jsonl") == 4"
"$BENCH" --quick --only steps,decode --threads 1 --profile --out "$TMP/p" >"$TMP/profile.txt"
for op in linear linear_dx linear_dw attention_backward adamw attention_paged sample; do
    compares "$op in a profile" "$(grep -cE "^    $op  .*of its roof" "$TMP/profile.txt") > 0"
done
compares "shares of a profile are 100 %" "$(awk '/% of the time/ { for (i = 2; i <= NF; i++) if ($i == "%") sum += $(i - 1) }
    /^    other/ { if (sum < 97 || sum > 100.5) bad++; sum = 0; n++ } END { print n ? bad + 0 : 1 }' "$TMP/profile.txt") == 0"
# every process uses what its arenas planned and little beside it
number() { grep -oE "\"$1\": [0-9.e+]+" "$TMP/b/growth.json" | sed 's/.*: //'; }
compares "points of growth" "$(number peak_rss_bytes | wc -l) == 8 && $(number median | wc -l) == 8"
case $BUILD in *san-*) skip "memory beside the plan" "sanitizers keep memory of their own" ;;
*) compares "memory beside the plan" "$(paste -d ' ' <(number planned_bytes) <(number peak_rss_bytes) |
       awk '$2 > $1 + 67108864 || $2 < $1 / 2 { bad++ } END { print bad + 0 }') == 0" ;;
esac
compares "plots of growth" "$(grep -c '<g transform' "$TMP/b/growth.svg") == 12"
refuses "unknown option" 2 "'--frobnicate 1'.*--help" "$BENCH" --frobnicate 1
refuses "unknown section" 2 "--only, --shapes, --dtypes or --recompute" "$BENCH" --only stpes
refuses "a device that is not there" 69 "cuda" "$BENCH" --quick --device cuda --out "$TMP/c"
refuses "a peer without common rows" 65 "no row has the name" "$BENCH" --from "$TMP/b/bench.jsonl" --peer /dev/null
refuses "an unknown point" 2 "no such point" "$BENCH" --point "step depth 3"
finish

#!/usr/bin/env bash
# The benchmark runs, writes what it says, and joins a peer's rows. No time is looked at.
. "$(dirname "$0")/lib.sh"
BENCH=$(cd "$BUILD/tests" && pwd)/bench

check "bench --quick" "$BENCH" --quick --out "$TMP/b" --threads 1,2
for row in "ceiling fma plain" "ceiling read 1 MiB" "sft tiny 4x24" "reward tiny 4x24" "decode tiny B=1 16+16" "decode tiny B=4 16+16" \
           "shared tiny 4 on one prompt 16+16" "ppo rollout tiny 4x(16+16)" "ppo iteration tiny 4x(16+16)"; do
    n=$(grep -cF "\"name\": \"$row\"," "$TMP/b/bench.jsonl")
    compares "$row with one and two threads" "$n == 2"
done
compares "no roof is passed by far" "$(grep '"threads": 1,' "$TMP/b/bench.jsonl" | grep -o '"fraction": [0-9.e+-]*' | cut -d: -f2 | sort -g | tail -n 1) < 3"
compares "a bar for every row with a roof" "$(grep -c '<rect x' "$TMP/b/bench.svg") == $(grep -c '"roof"' "$TMP/b/bench.jsonl")"
# a peer that is twice as slow
grep -E '"(sft|reward) tiny|ppo iteration' "$TMP/b/bench.jsonl" | grep '"threads": 1,' |
    sed -E 's/.*("name": "[^"]*").*("unit": "[^"]*").*"median": ([^,]*),.*/\1 \2 \3/' | while read -r line; do
        v=${line##* }
        case $line in *'"unit": "s"'*) v=$(awk "BEGIN { printf \"%.9g\", 2 * $v }") ;; *) v=$(awk "BEGIN { printf \"%.9g\", $v / 2 }") ;; esac
        printf '%s\n' "$line" | sed -E "s/^(.*\") (\"unit.*\") [^ ]*$/{\1, \"threads\": 1, \2, \"median\": $v, \"variant\": \"f32\"}/"
    done >"$TMP/peer.jsonl"
"$BENCH" --from "$TMP/b/bench.jsonl" --peer "$TMP/peer.jsonl" >"$TMP/joined.txt"
compares "ratios to a peer" "$(grep -c ' 2\.00x  floor .* met' "$TMP/joined.txt") == 3"
check "rows of a profile alone" "$BENCH" --quick --only steps --match reward --threads 1 --out "$TMP/m"
compares "--match" "$(grep -c sft "$TMP/m/bench.jsonl") == 0 && $(grep -c reward "$TMP/m/bench.jsonl") == 1"
refuses "unknown option" 2 "'--frobnicate 1'.*--help" "$BENCH" --frobnicate 1
refuses "unknown section" 2 "--only or --shapes" "$BENCH" --only stpes
refuses "a device that is not there" 69 "cuda" "$BENCH" --quick --device cuda --out "$TMP/c"
refuses "a peer without common rows" 65 "no row has the name" "$BENCH" --from "$TMP/b/bench.jsonl" --peer /dev/null
finish

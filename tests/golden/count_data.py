#!/usr/bin/env python3
"""Counts of the public files that tests/unit/test_import.c expects, taken without any of our code.

    python3 tests/golden/count_data.py ../shared/data          (from the root of the project)

Needs nothing but Python. hh-rlhf: transcripts cut at their speakers, blanks taken off, turns of one speaker
joined; the prompt is what chosen and rejected begin with alike, in whole turns. DiaSafety: context and response.
"""
import gzip
import json
import re
import sys

BLANK = " \t\r\n"


def turns(text):
    parts = re.split(r"\n\n(Human|Assistant):", text)
    out = []
    for who, what in zip(parts[1::2], parts[2::2]):
        what = what.strip(BLANK)
        if out and out[-1][0] == who:
            out[-1][1] += ("\n\n" if out[-1][1] and what else "") + what
        else:
            out.append([who, what])
    return out


def count_hh(path):
    n = dict(read=0, kept=0, identical=0, empty=0, no_common_prompt=0, duplicate=0, prompt=0, chosen=0, rejected=0, user=0)
    seen = set()
    for line in gzip.open(path, "rt", encoding="utf-8"):
        row = json.loads(line)
        n["read"] += 1
        c, r = turns(row["chosen"]), turns(row["rejected"])
        if not c[-1][1] or not r[-1][1]:
            n["empty"] += 1
            continue
        if c == r:
            n["identical"] += 1
            continue
        k = 0
        while k < min(len(c), len(r)) and c[k] == r[k]:
            k += 1
        if k == 0 or len(c) != k + 1 or len(r) != k + 1:
            n["no_common_prompt"] += 1
            continue
        if not all(what for _, what in c[:k]):
            n["empty"] += 1
            continue
        key = json.dumps([c, r])
        if key in seen:
            n["duplicate"] += 1
            continue
        seen.add(key)
        n["kept"] += 1
        n["prompt"] += sum(len(what) for _, what in c[:k])
        n["chosen"] += len(c[k][1])
        n["rejected"] += len(r[k][1])
        n["user"] += sum(who == "Human" for who, _ in c[:k])
    return n


def count_diasafety(path, against=()):
    n = dict(read=0, kept=0, empty=0, duplicate=0, overlap=0, safe=0, unsafe=0, prompts=0, contradict=0, context=0, response=0)
    seen, prompts = set(), set()
    for row in json.load(open(path, encoding="utf-8")):
        n["read"] += 1
        prompt, answer, label = row["context"].strip(BLANK), row["response"], row["label"]
        if not prompt or not answer.strip(BLANK):
            n["empty"] += 1
            continue
        if prompt in against:
            n["overlap"] += 1
            continue
        if (prompt, answer, label) in seen:
            n["duplicate"] += 1
            continue
        n["contradict"] += (prompt, answer, "Unsafe" if label == "Safe" else "Safe") in seen
        seen.add((prompt, answer, label))
        n["prompts"] += prompt not in prompts
        prompts.add(prompt)
        n["kept"] += 1
        n[label.lower()] += 1
        n["context"] += len(row["context"])
        n["response"] += len(answer)
    return n, prompts


def main():
    data = sys.argv[1]
    for name in "helpful", "harmless":
        print(name, count_hh(f"{data}/hh_rlhf/{name}-base.test.jsonl.gz"))
    for name in "train", "val", "test":
        print("diasafety", name, count_diasafety(f"{data}/diasafety/{name}.json")[0])
    test = count_diasafety(f"{data}/diasafety/test.json")[1]
    print("diasafety train against test", count_diasafety(f"{data}/diasafety/train.json", test)[0])


main()

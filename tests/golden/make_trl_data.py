#!/usr/bin/env python3
"""Golden rows of TRL's own data utilities: what they make of every record type, plain and conversational.

    python tests/golden/make_trl_data.py > tests/golden/trl_data.json        (from the root of the project)

Made with trl 1.16.0, datasets 5.2.0, transformers 5.24.0, tokenizers 0.23.3; needs no PyTorch. Checked by
tests/unit/test_trl_data.c.

  pairs      rows with chosen and rejected; `extracted` by maybe_extract_prompt, `unpaired` by
             unpair_preference_dataset. `inside_word`: TRL cuts the prompt inside a word, we in front of it
  converted  rows with from and value; `chatml` by maybe_convert_to_chatml
  rendered   by tokenizer: rows of every type and what maybe_apply_chat_template makes of them; `ids` are those of
             prompt and answer together, one list for each answer
"""
import copy
import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl.data_utils import (maybe_apply_chat_template, maybe_convert_to_chatml, maybe_extract_prompt,
                            unpair_preference_dataset)

HERE = "tests/golden/"


def turns(*texts, system=None):
    roles = ["user", "assistant"] * len(texts)
    return ([{"role": "system", "content": system}] if system else []) + [
        {"role": r, "content": t} for r, t in zip(roles, texts)]


def answer(text):
    return [{"role": "assistant", "content": text}]


PAIRS = [
    # plain: explicit prompt, implicit prompt
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"prompt": "What is the answer?", "chosen": "42", "rejected": "I don't know."},
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"chosen": "one two three four", "rejected": "one two 3 four"},
    {"chosen": "Grüße aus München, heute", "rejected": "Grüße aus München, morgen"},
    {"chosen": "I have a cat", "rejected": "I have a car"},
    {"chosen": "He said yes and left", "rejected": "He said yesterday"},
    # conversational: explicit, implicit, several turns, a system message
    {"prompt": turns("What color is the sky?"), "chosen": answer("It is blue."), "rejected": answer("It is green.")},
    {"chosen": turns("What color is the sky?", "It is blue."), "rejected": turns("What color is the sky?", "It is green.")},
    {"chosen": turns("a", "b", "c", "d", system="Be brief."), "rejected": turns("a", "b", "c", "e", system="Be brief.")},
    {"prompt": turns("a", "b", "c", system="Be brief."), "chosen": answer("d"), "rejected": answer("e")},
    # a plain prompt beside conversations that hold it (ultrafeedback_binarized)
    {"prompt": "a", "chosen": turns("a", "b"), "rejected": turns("a", "c")},
]
CONVERTED = [
    {"conversations": [{"from": "user", "value": "What color is the sky?"}, {"from": "assistant", "value": "It is blue."}]},
    {"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
    {"prompt": [{"from": "user", "value": "q"}], "completion": [{"from": "assistant", "value": "a"}]},
    {"prompt": [{"from": "user", "value": "q"}], "chosen": [{"from": "assistant", "value": "a"}],
     "rejected": [{"from": "assistant", "value": "b"}]},
]
RENDERED = [
    {"prompt": turns("What is the answer?")},
    {"prompt": turns("Hello", "Hello there!", "Numbers: 1, 22", system="Be brief.")},
    {"messages": turns("Hello", "Hello there!", "What is the answer?", "The answer is 42.")},
    {"prompt": turns("What is the answer?", system="Be brief."), "completion": answer("The answer is 42.")},
    {"prompt": turns("What is the answer?"), "chosen": answer("The answer is 42."), "rejected": answer("Привет, мир!")},
    {"chosen": turns("Hello", "Hello there!"), "rejected": turns("Hello", "Hello, how are you?")},
    {"prompt": turns("What is the answer?"), "completion": answer("No, 12:45."), "label": False},
]


def tokenizer(name):
    config = json.load(open(f"{HERE}text/{name}/tokenizer_config.json"))
    tok = PreTrainedTokenizerFast(tokenizer_file=f"{HERE}text/{name}/tokenizer.json", eos_token=config["eos_token"],
                                  bos_token=config["bos_token"])
    tok.chat_template = config["chat_template"]
    return tok


def pair(row):
    extracted = maybe_extract_prompt(copy.deepcopy(row))
    unpaired = list(unpair_preference_dataset(Dataset.from_list([extracted])))
    prompt = extracted["prompt"]
    inside = "prompt" not in row and isinstance(prompt, str) and any(extracted[k][:1] != " " for k in ("chosen", "rejected"))
    return {"row": row, "extracted": extracted, "unpaired": unpaired, "inside_word": inside}


def render(row, tok):
    text = maybe_apply_chat_template(copy.deepcopy(row), tok)
    prompt = text.get("prompt", "")
    whole = [prompt + text[k] for k in ("text", "completion", "chosen", "rejected") if k in text] or [prompt]
    return {"row": row, "text": text, "ids": [tok.encode(t, add_special_tokens=False) for t in whole]}


if __name__ == "__main__":
    result = {
        "pairs": [pair(r) for r in PAIRS],
        "converted": [{"row": r, "chatml": maybe_convert_to_chatml(copy.deepcopy(r))} for r in CONVERTED],
        "rendered": {name: [render(r, tokenizer(name)) for r in RENDERED] for name in ("fallback", "byte_level")},
    }
    json.dump(result, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()

"""Writes the golden files of the tokenizer and template tests: tests/golden/text/.

Pinned: tokenizers 0.20.3, transformers 4.46.3, jinja2 3.1. Run from the root of the project:
    python tests/golden/make_text.py
The tokenizers are trained here on the lines below, so nothing of others is copied. Per tokenizer:
  tokenizer.json, tokenizer_config.json
  golden.jsonl  one line per line of cases.jsonl:
                [ids of user text, ids with special tokens and post-processor, decoded, skipping]
  chat.jsonl    {"messages", "open", "text", "ids"}; text is what the Jinja template gives
"""
import copy
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "text")

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.",
    "I'm sure you'll see that they've gone; we'd better wait until 12:45, shouldn't we?",
    "def copy(a, b):\n    return [a[i] for i in range(len(b))]\n",
    "Numbers: 1, 22, 333, 4444, 55555; 3.14159 and 2.71828.",
    "Grüße aus München, déjà vu, naïve façade, señor Núñez.",
    "Привет, мир! Как дела? Хорошо, спасибо.",
    "你好,世界。今天天气很好。",
    "안녕하세요 세계",
    "system user assistant human: hello, how are you today? I am fine, thank you.",
    "\n\nHuman: What is the answer?\n\nAssistant: The answer is 42.\n",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hello there! ",
    "THE END. The other weather is rather better than that; whether or not is another matter.",
] * 4

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
          "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
          "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
          "{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
          "{% else %}{% set content = message['content'] %}{% endif %}"
          "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
          "{% endfor %}")
PLAIN = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '\n\nHuman: ' + m['content'] }}"
         "{% elif m['role'] == 'assistant' %}{{ '\n\nAssistant: ' + m['content'] + eos_token }}"
         "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
         "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}")


def cases():
    fixed = [
        "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\t\n ", " \n x", "a", " a", "a ", "  a  b   c    ",
        "Hello world", " Hello World!", "hello,world", "don't DON'T I'LL we'Ve 'S ' s", "it''s", "'", "x'y",
        "1 12 123 1234 12345 3.14 1,000", "٣٤٥ ½ Ⅷ ① ²", "abc123def", "___ __init__ a_b", "#!/bin/sh -e",
        "é e\u0301 \u00c5 A\u030a \u212b", "한국 \u1112\u1161\u11ab\u1100\u116e\u11a8", "ﬁ ﬀ", "İ ı ſ ß ẞ",
        "日本語テキスト", "你好,世界。", "Привет, мир!", "नमस्ते", "สวัสดี", "שלום", "مرحبا",
        "🦙", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "👍🏽", "\U0001d518\U0001d52b", "\U0010ffff", "\ue000\uf8ff",
        "\u00a0x", "x\u2003y", "\u3000", "\u180e", "a\u180eb", " \u180e ", "\u200b", "\ufeffbom", "\u2028\u2029",
        "\x00", "a\x00b", "\x01\x02\x1f\x7f", "\x85", "\u0085 x", "▁", "▁a", "a▁b", " ▁ a", "▁▁", "\ufffd",
        "<s>", "</s>", "a<s>b", "<s> a </s> b", "<unk>", "<|im_start|>user\nhi<|im_end|>", "<|im_end|>",
        "<|endoftext|>", "x<|endoftext|>y", "<think>", "a <think> b</think>", "<<think>>", "<thi", "<0x0A>", "<0xFF>",
        "<lstrip>", "a  <lstrip>  b", "a  <rstrip>  b", "  <rstrip>", "<rstrip>  <lstrip>  x", "word", "a word b",
        "words sword word", "word word", "wordword", "word.", "éword", "word\u0301", "<norm>", "x <norm> y",
        "Å<norm>", "caf\u00e9tok", "cafe\u0301tok", "a caf\u00e9tok b",
        "\n\nHuman: copy a b\n\nAssistant: a b", "\n\n\nHuman:", "\n\nHuman", "copy a b", " copy", "copy", "copy  a",
        "[INST] hi [/INST]", "[INST] <<SYS>>\nx\n<</SYS>>\n\ny [/INST] z ", "a\n\n\nb", "a \n\n b", "end.\n\nNext",
        "The quick brown fox", "thethethe the the", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "=" * 40, " " * 40 + "x",
    ]
    r = random.Random(7)
    parts = ["a", "the ", "  ", "\n", "\t", "\r\n", "'s", "'LL", " ", "0", "12", "٣", "½", "é", "e\u0301", "한",
             "\u1112\u1161\u11ab", "日本", "🦙", "\u200d", "\u00a0", "\u3000", "\u180e", "▁", "<s>", "</s>",
             "<|im_end|>", "<think>", "<lstrip>", "<rstrip>", "word", "<norm>", ".", "!?", "_", "\x00", "\ufeff",
             "ſ", "न", "ि", "<0x0A>", "\n\nHuman:", "copy", " a", "Zz", "hello", "there"]
    while len(fixed) < 260:
        fixed.append("".join(r.choice(parts) for _ in range(r.randrange(2, 9))))
    return fixed


def chats():
    u = lambda s: {"role": "user", "content": s}
    a = lambda s: {"role": "assistant", "content": s}
    s = {"role": "system", "content": "Be brief."}
    return [
        ([u("hello there")], True),
        ([s, u("hello there")], True),
        ([u("What is 12+30?"), a("The answer is 42.")], False),
        ([s, u("Hello, wie geht's?"), a("Gut!"), u("你好 🦙"), a("Привет")], False),
        ([u("a\nb\n\nc"), a("x\n\ny"), u("the end")], True),
    ]


def byte_level(name):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=True)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if name == "byte_level_split":
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens([AddedToken("<think>", normalized=False)])
    if name == "byte_level_split":
        t.add_tokens([AddedToken("<lstrip>", lstrip=True, normalized=False),
                      AddedToken("<rstrip>", rstrip=True, normalized=False),
                      AddedToken("word", single_word=True, normalized=False),
                      AddedToken("<norm>", normalized=True), AddedToken("cafe\u0301tok", normalized=True)])
        t.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])])
    j = json.loads(t.to_str())
    if name == "byte_level_split":
        j["model"]["ignore_merges"] = True
    return j, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "chat_template": CHATML}


def fallback():
    """A Llama 2 kind of file: bytes in the vocabulary, merges learnt on text with U+2581."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # for training only
    specials = ["<unk>", "<s>", "</s>"]
    lines = [s for s in CORPUS if max(s) < "\u0180"]  # Cyrillic and beyond stay unknown
    t.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=600, show_progress=False,
        special_tokens=specials + ["<0x%02X>" % b for b in range(256)]))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] in specials]
    j["pre_tokenizer"] = None
    j["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    j["post_processor"] = {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return j, {"bos_token": "<s>", "eos_token": "</s>", "chat_template": LLAMA2}


def metaspace(scheme, split):
    j, config = fallback()
    j = copy.deepcopy(j)
    j["normalizer"] = None
    step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
    j["pre_tokenizer"] = step
    j["decoder"] = dict(step)
    j["model"]["byte_fallback"] = False  # so that <unk> and its fusing are seen
    j["model"]["merges"] = [m.split(" ") if isinstance(m, str) else m for m in j["model"]["merges"]]
    return j, config


def words():
    """The demo's kind: whole words, no merges, the markers of the plain template as added tokens."""
    vocab = ["<unk>", "<s>", "</s>", "\n\nHuman:", "\n\nAssistant:"]
    vocab += ["▁" + w for w in "copy a b hello there The answer is 42. word".split()]
    step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}
    added = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": i < 3} for i, c in enumerate(vocab[:5])]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
             "vocab": {w: i for i, w in enumerate(vocab)}, "merges": []}
    j = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
         "pre_tokenizer": step, "post_processor": None, "decoder": step, "model": model}
    return j, {"bos_token": None, "eos_token": "</s>", "chat_template": PLAIN}


def without_specials(j):
    """The same tokenizer with special tokens that no text can reach: where Hugging Face looks a
    user's word "<s>" up in the vocabulary (ignore_merges), the project does not."""
    j = copy.deepcopy(j)
    names = [a["content"] for a in j["added_tokens"] if a["special"] and a["content"] != "<unk>"]
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] not in names]
    j["model"]["vocab"] = {("\x00hidden " * (k in names)) + k: v for k, v in j["model"]["vocab"].items()}
    j["post_processor"] = None
    return Tokenizer.from_str(json.dumps(j))


def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def dump(x):
    return json.dumps(x, ensure_ascii=True, separators=(",", ":")) + "\n"


def main():
    made = {
        "byte_level": byte_level("byte_level"),
        "byte_level_split": byte_level("byte_level_split"),
        "fallback": fallback(),
        "metaspace_first": metaspace("first", False),
        "metaspace_always": metaspace("always", True),
        "words": words(),
    }
    texts = cases()
    os.makedirs(OUT, exist_ok=True)
    write(os.path.join(OUT, "cases.jsonl"), "".join(dump({"text": s}) for s in texts))
    for name, (j, config) in made.items():
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "tokenizer.json")
        write(path, json.dumps(j, ensure_ascii=False, separators=(",", ":")) + "\n")
        write(os.path.join(folder, "tokenizer_config.json"), json.dumps(config, indent=2) + "\n")
        t = Tokenizer.from_file(path)
        hidden = without_specials(j)
        specials = {a["id"] for a in j["added_tokens"] if a["special"] and a["content"] != "<unk>"}
        lines = []
        for s in texts:
            t.encode_special_tokens = True
            user = t.encode(s, add_special_tokens=False).ids
            if specials & set(user):
                user = hidden.encode(s, add_special_tokens=False).ids
            t.encode_special_tokens = False
            ids = t.encode(s).ids
            lines.append(dump([user, ids, t.decode(ids, skip_special_tokens=False), t.decode(ids)]))
        write(os.path.join(folder, "golden.jsonl"), "".join(lines))
        hf = PreTrainedTokenizerFast(tokenizer_file=path, bos_token=config["bos_token"],
                                     eos_token=config["eos_token"], chat_template=config["chat_template"])
        lines = []
        for messages, opened in chats():
            args = dict(add_generation_prompt=opened)
            lines.append(dump({"messages": messages, "open": opened,
                               "text": hf.apply_chat_template(messages, tokenize=False, **args),
                               "ids": hf.apply_chat_template(messages, **args)}))
        write(os.path.join(folder, "chat.jsonl"), "".join(lines))


if __name__ == "__main__":
    main()

"""Writes the hashes that tests/unit/test_text_golden.c compares with, and the tokenizers they are of.

Pinned: tokenizers 0.20.3, transformers 4.46.3, sentencepiece 0.2.0, jinja2 3.1.4, protobuf 5.28.3, xxhash 3.5.0.
Run from the root of the project, after make_text.py, with the test program built:
    python tests/golden/make_strings.py build/tests/test_text_golden [../shared]
    python tests/golden/make_strings.py build/tests/test_text_golden --group NAME N    (first difference of a group)
    ONLY=llama3,chat/llama3 python ...    (these hashes alone)
The strings and conversations come from the test program (--strings, --chats). The tokenizers are trained on
them; with ../shared given, the hashes of the real ones there are written too, but never their files.

A hash is the low half of XXH3-64 over what 100 strings or conversations give, as the test's head describes.
A conversation is rendered by its Jinja template; an answer is encoded apart from what stands before it, where
the template itself says the prompt ends, without a space put in front.
"""
import copy
import json
import os
import struct
import subprocess
import sys
import tempfile

import sentencepiece as spm
import xxhash
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_text import CHATML, LLAMA2, LLAMA3, OUT, PLAIN, dump, without_specials, write

VERSIONS = "tokenizers 0.20.3, transformers 4.46.3, sentencepiece 0.2.0, jinja2 3.1.4"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPACE = "\u2581"

HEAD = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>'"
OPEN3 = "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
TEMPLATE3 = ("{{ bos_token }}{% for message in messages %}{{ " + HEAD + " }}{% endfor %}" + OPEN3)
TEMPLATE31 = ("{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}"
              "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
              "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{{- 'Cutting Knowledge Date: December 2023\n' }}"
              "{{- 'Today Date: ' + '26 Jul 2024' + '\n\n' }}{{- system }}{{- '<|eot_id|>' }}"
              "{%- for message in messages %}{{- " + HEAD + " }}{%- endfor %}" + OPEN3)


def chatml(system):
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\n" + system + "<|im_end|>\n' }}{% endif %}"
            "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


ZEPHYR = "".join("{% " + word + " message['role'] == '" + role + "' %}\n{{ '<|" + role + "|>\n' + message['content'] + eos_token }}\n"
                 for word, role in (("if", "user"), ("elif", "system"), ("elif", "assistant")))
TEMPLATES = {
    "llama2": LLAMA2,
    "llama3": TEMPLATE3,
    "llama3.1": TEMPLATE31,
    "chatml": CHATML,
    "qwen2": chatml("You are a helpful assistant."),
    "qwen2.5": chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "smollm2": chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "zephyr": "{% for message in messages %}\n" + ZEPHYR + "{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
              "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
               "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
               "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
               "{{ message['content'] + eos_token}}{% endif %}{% endfor %}",
    "plain": "{{ bos_token }}" + PLAIN,
}


# ---- strings and conversations of the test program

def read_dump(program, what):
    with tempfile.NamedTemporaryFile() as f:
        subprocess.run([program, what, f.name], check=True)
        return open(f.name, "rb").read()


def read_strings(program):
    b, at, out = read_dump(program, "--strings"), 0, []
    while at < len(b):
        n, = struct.unpack_from("<i", b, at)
        out.append(b[at + 4:at + 4 + n])
        at += 4 + n
    return out


def read_chats(program):
    b, at, out = read_dump(program, "--chats"), 0, []
    while at < len(b):
        n, opened = struct.unpack_from("<ii", b, at)
        at += 8
        messages = []
        for _ in range(n):
            role, size = struct.unpack_from("<ii", b, at)
            messages.append({"role": ("system", "user", "assistant")[role], "content": b[at + 8:at + 8 + size].decode()})
            at += 8 + size
        out.append((messages, bool(opened)))
    return out


def text_of(b):
    try:
        return b.decode()
    except UnicodeDecodeError as e:
        return e.start


# ---- tokenizers trained here

def train_byte_level(name, lines):
    t = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name == "smollm2")
    if name == "smollm2":
        first = pre_tokenizers.Digits(individual_digits=True)
        specials, bos, eos = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_start|>", "<|im_end|>"
    else:
        first = pre_tokenizers.Split(Regex(LLAMA3 if name == "llama3" else QWEN), "isolated")
        specials, bos, eos = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>"
    if name == "llama3":
        specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        bos, eos = specials[0], specials[4]
    if name == "qwen2":
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1200, special_tokens=[] if name == "llama3" else specials,
                                                     show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if name == "llama3":  # words that no merges make, for ignore_merges; tokens behind the vocabulary
        j = json.loads(t.to_str())
        j["model"]["ignore_merges"] = True
        for word in ["\u0120upon", "tokenizer", "\u0120ZqZ"]:
            j["model"]["vocab"].setdefault(word, len(j["model"]["vocab"]))
        t = Tokenizer.from_str(json.dumps(j))
        t.add_special_tokens([AddedToken(s, normalized=False) for s in specials])
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single=bos + " $A", special_tokens=[(bos, t.token_to_id(bos))])])
    j = json.loads(t.to_str())
    if name == "smollm2":  # the older syntax of merges
        j["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in j["model"]["merges"]]
    else:
        j["model"]["merges"] = [m.split(" ") if isinstance(m, str) else m for m in j["model"]["merges"]]
    config = {"bos_token": bos, "eos_token": eos,
              "chat_template": TEMPLATES[{"llama3": "llama3", "qwen2": "qwen2", "smollm2": "smollm2"}[name]]}
    return j, config


def train_spm(name, lines):
    options = {
        "spm_llama2": dict(byte_fallback=True, split_digits=True, vocab_size=900),
        "spm_trim": dict(remove_extra_whitespaces=True, vocab_size=700, control_symbols=["<ctl>"],
                         user_defined_symbols=["<sep>", "<x y>", "@@", "  ", "the"]),
        "spm_unused": dict(byte_fallback=True, vocab_size=900),
        "spm_inner": dict(split_by_whitespace=False, vocab_size=700),
    }[name]
    with tempfile.TemporaryDirectory() as d:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=os.path.join(d, "m"), model_type="bpe", num_threads=1,
            normalization_rule_name="identity", character_coverage=0.999, max_sentence_length=20000,
            allow_whitespace_only_pieces=True, minloglevel=2, **{"remove_extra_whitespaces": False, **options})
        model = pb.ModelProto.FromString(open(os.path.join(d, "m.model"), "rb").read())
    if name in ("spm_unused", "spm_inner"):  # equal scores, and characters that are only part of pieces
        normal = [p for p in model.pieces if p.type == 1]
        for i, p in enumerate(normal):
            p.score = float(int(p.score / 8) * 8)
            if len(p.piece) == 1 and p.piece in "eqsщ":
                p.piece = "gone%d" % i
        for p in normal[5:400:7] if name == "spm_unused" else []:
            if len(p.piece) > 1:
                p.type = 5
    model.trainer_spec.ClearField("input")
    model.trainer_spec.model_prefix = ""
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": LLAMA2}
    if name == "spm_inner":
        config["legacy"] = False
    return model.SerializeToString(), config


# ---- the originals: user(text) -> ids, special(text) -> ids, decode(ids)

class Fast:
    def __init__(self, path):
        j = json.load(open(path))
        self.t, self.hidden = Tokenizer.from_file(path), without_specials(j)
        self.hidden.encode_special_tokens = True  # <unk> stays
        unk = j["model"].get("unk_token")
        self.specials = {a["id"] for a in j["added_tokens"] if a["special"] and a["content"] != unk}
        self.spm = False

    def user(self, texts):
        self.t.encode_special_tokens = True
        out = [e.ids for e in self.t.encode_batch(texts, add_special_tokens=False)]
        hit = [i for i, ids in enumerate(out) if self.specials & set(ids)]
        for i, e in zip(hit, self.hidden.encode_batch([texts[i] for i in hit], add_special_tokens=False)):
            out[i] = e.ids
        return out

    def special(self, texts):
        self.t.encode_special_tokens = False
        return [e.ids for e in self.t.encode_batch(texts)]

    def decode(self, lists):
        return self.t.decode_batch(lists, skip_special_tokens=False)


class Slow:
    def __init__(self, path, config):
        self.sp = spm.SentencePieceProcessor(model_file=path)
        extra = [self.sp.id_to_piece(i) for i in range(self.sp.get_piece_size()) if self.sp.is_control(i)]
        self.hf = LlamaTokenizer(path, legacy=config.get("legacy", True),
                                 additional_special_tokens=[s for s in extra if s not in ("<s>", "</s>")])
        self.spm = True

    def user(self, texts):
        return self.sp.encode(texts)

    def special(self, texts):
        return [self.hf(s).input_ids for s in texts]

    def decode(self, lists):
        return [self.sp.decode(ids) if ids else "" for ids in lists]


def pack_ids(ids):
    return struct.pack("<%di" % (len(ids) + 1), len(ids), *ids)


def pack_text(s):
    b = s.encode()
    return struct.pack("<i", len(b)) + b


def strings_of(original, strings):
    """What the test hashes, per string."""
    texts = [s for s in map(text_of, strings) if isinstance(s, str)]
    user, special = original.user(texts), original.special(texts)
    whole = original.decode(user if original.spm else special)
    part = original.decode([ids[1:-1] if len(ids) > 2 else [] for ids in user])
    good = zip(user, special, whole, part)
    for s in map(text_of, strings):
        if isinstance(s, str):
            u, p, w, q = next(good)
            yield pack_ids(u) + pack_ids(p) + pack_text(w) + pack_text(q)
        else:
            yield struct.pack("<ii", -1, s)


# ---- conversations

class Chat:
    def __init__(self, template, folder):
        config = json.load(open(os.path.join(folder, "tokenizer_config.json")))
        self.template, self.end = TEMPLATES[template], "</s>"
        self.eos, self.bos = config["eos_token"], config["bos_token"]
        self.end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(
            "chatml" if "im_end" in self.template else "llama3" if "eot_id" in self.template else "", self.eos)
        path = os.path.join(folder, "tokenizer.json")
        self.sp = None
        if os.path.exists(path):
            j = json.load(open(path))
            self.t = Tokenizer.from_file(path)
            for part in (j.get("normalizer") or {}).get("normalizers", [])[:]:
                if part["type"] == "Prepend":
                    j["normalizer"]["normalizers"].remove(part)
            if (j["pre_tokenizer"] or {}).get("type") == "Metaspace":
                j["pre_tokenizer"]["prepend_scheme"] = "never"
            self.bare = Tokenizer.from_str(json.dumps(j))
            hf = PreTrainedTokenizerFast(tokenizer_object=self.t, bos_token=self.bos, eos_token=self.eos)
        else:
            data = open(os.path.join(folder, "tokenizer.model"), "rb").read()
            model = pb.ModelProto.FromString(data)
            self.sp = spm.SentencePieceProcessor(model_proto=data)
            model.normalizer_spec.add_dummy_prefix = False
            self.bare = spm.SentencePieceProcessor(model_proto=model.SerializeToString())
            hf = LlamaTokenizer(os.path.join(folder, "tokenizer.model"), legacy=True)
        self.hf = hf

    def render(self, messages, opened):
        return self.hf.apply_chat_template(messages, tokenize=False, chat_template=self.template,
                                           add_generation_prompt=opened)

    def encode(self, text):
        if not self.sp:
            return self.t.encode(text, add_special_tokens=False).ids
        out = []
        for i, part in enumerate(text.replace("</s>", "<s>\0").split("<s>")):
            if part.startswith("\0"):
                out, part = out + [2], part[1:]
            elif i > 0:
                out = out + [1]
            out = out + self.sp.encode(part)
        return out

    def encode_bare(self, text):
        return self.bare.encode(text) if self.sp else self.bare.encode(text, add_special_tokens=False).ids

    def ids(self, messages, opened):
        """The ids, and [from, to) of every answer; None where the template refuses."""
        try:
            text = self.render(messages, opened)
        except Exception:
            return None
        ids, spans, at = [], [], 0
        for i, m in enumerate(messages):
            if m["role"] != "assistant":
                continue
            prompt = self.render(messages[:i], True)
            assert text.startswith(prompt)
            ids += self.encode_after(text[at:len(prompt)], at)
            at = text.index(self.end, len(prompt))
            start = len(ids)
            ids += self.encode_bare(text[len(prompt):at])
            spans += [start, len(ids) + 1]
        return ids + self.encode_after(text[at:], at), spans

    def encode_after(self, text, at):
        return self.encode(text) if text else []


def chats_of(chat, chats):
    for messages, opened in chats:
        got = chat.ids(messages, opened)
        yield struct.pack("<i", -1) if got is None else pack_ids(got[0]) + struct.pack("<%di" % len(got[1]), *got[1])


CHATS = {"llama2": "fallback", "llama2_spm": "spm_llama2", "llama3": "llama3", "llama3.1": "llama3", "chatml": "byte_level",
         "qwen2": "qwen2", "qwen2.5": "qwen2", "smollm2": "smollm2", "zephyr": "fallback", "mistral": "metaspace_first",
         "plain": "byte_level_split"}


# ---- writing

def groups(items):
    items = list(items)
    return [b"".join(items[i:i + 100]) for i in range(0, len(items), 100)]


def write_hashes(path, items):
    name = os.path.relpath(path, OUT).replace("/strings.hash", "").replace(".hash", "")
    if os.environ.get("ONLY") and name not in os.environ["ONLY"].split(","):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lines = ["%08x\n" % (xxhash.xxh3_64_intdigest(g) & 0xFFFFFFFF) for g in groups(items)]
    write(path, "made by make_strings.py: " + VERSIONS + "\n" + "".join(lines))
    print(path, flush=True)


def open_original(folder):
    path = os.path.join(folder, "tokenizer.json")
    config = os.path.join(folder, "tokenizer_config.json")
    if os.path.exists(path):
        return Fast(path)
    return Slow(os.path.join(folder, "tokenizer.model"), json.load(open(config)) if os.path.exists(config) else {})


def show_difference(program, name, number, strings, chats):
    ours = bytes.fromhex(subprocess.run([program, "--group", name, str(number)], check=True, capture_output=True).stdout.decode())
    if name.startswith("chat/"):
        kind = name[5:]
        inputs = chats[100 * number:100 * number + 100]
        parts = chats_of(Chat(kind.split("_")[0], os.path.join(OUT, CHATS[kind])), inputs)
    else:
        inputs = strings[100 * number:100 * number + 100]
        parts = strings_of(open_original(name if "/" in name else os.path.join(OUT, name)), inputs)
    at = 0
    for i, part in enumerate(parts):
        if ours[at:at + len(part)] != part:
            print("number", 100 * number + i, repr(inputs[i]))
            for what, b in (("theirs", part), ("ours", ours[at:at + len(part) + 40])):
                print(what, struct.unpack("<%di" % (len(b) // 4), b[:len(b) // 4 * 4]))
            return
        at += len(part)
    print("the same")


def main():
    program, rest = sys.argv[1], sys.argv[2:]
    strings, chats = read_strings(program), read_chats(program)
    if rest[:1] == ["--group"]:
        return show_difference(program, rest[1], int(rest[2]), strings, chats)
    lines = [s for s in map(text_of, strings) if isinstance(s, str) and "<" not in s and "[" not in s and len(s) < 400]
    for name in ("llama3", "qwen2", "smollm2"):
        j, config = train_byte_level(name, lines[:8000])
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        write(os.path.join(folder, "tokenizer.json"), json.dumps(j, ensure_ascii=False, separators=(",", ":")) + "\n")
        write(os.path.join(folder, "tokenizer_config.json"), json.dumps(config, indent=2) + "\n")
    latin = [s for s in lines if s and max(s) < "\u0500" and "\0" not in s and "\n" not in s][:8000]
    for name in ("spm_llama2", "spm_trim", "spm_unused", "spm_inner"):
        data, config = train_spm(name, latin)
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        open(os.path.join(folder, "tokenizer.model"), "wb").write(data)
        write(os.path.join(folder, "tokenizer_config.json"), json.dumps(config, indent=2) + "\n")
    write(os.path.join(OUT, "templates.json"), json.dumps(TEMPLATES, indent=1) + "\n")
    for name in ("byte_level", "byte_level_split", "fallback", "metaspace_first", "metaspace_always", "words", "llama3",
                 "qwen2", "smollm2", "spm_llama2", "spm_trim", "spm_unused", "spm_inner"):
        write_hashes(os.path.join(OUT, name, "strings.hash"), strings_of(open_original(os.path.join(OUT, name)), strings))
    for kind, folder in CHATS.items():
        chat = Chat(kind.split("_")[0], os.path.join(OUT, folder))
        write_hashes(os.path.join(OUT, "chat", kind + ".hash"), chats_of(chat, chats))
    if rest:
        write_real(program, rest[0], strings)


def write_real(program, shared, strings):
    with tempfile.TemporaryDirectory() as d:
        for rule in ("gpt2", "llama3"):
            subprocess.run([program, "--gpt2", os.path.join(d, rule), rule], check=True)
        for name, folder in (("llama2", "data/tokenizers/llama2"), ("minimind", "data/tokenizers/minimind"),
                             ("stories260k", "models/stories260k"),
                             ("gpt2", os.path.join(d, "gpt2")), ("gpt2_llama3", os.path.join(d, "llama3"))):
            folder = os.path.join(shared, folder)
            if os.path.isdir(folder):
                write_hashes(os.path.join(OUT, "real", name + ".hash"), strings_of(open_original(folder), strings))


if __name__ == "__main__":
    main()

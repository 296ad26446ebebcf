"""Prints the table `young_marks` of common/text/normalize.c: characters that NFC moves or composes in Unicode 15,
the version of Debian 12's utf8proc, and that Hugging Face's NFC, of Unicode 9, takes for characters like any other.

Pinned: tokenizers 0.20.3, unicodedata2 15.0.0.    python tests/golden/make_young_marks.py
"""
import unicodedata2 as ucd
from tokenizers import normalizers

nfc = normalizers.NFC().normalize_str
points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def is_young_mark(c):
    """A mark that stands where a mark of another class would make it move."""
    k = ucd.combining(c)
    other = "\u0301" if k < 230 else "\u0334"
    pair = other + c if k < 230 else c + other
    return k > 0 and ucd.normalize("NFC", pair) != pair and nfc(pair) == pair


def young_halves(c):
    """The second half of a composition that is not made."""
    d = ucd.normalize("NFD", c)
    if len(d) == 2 and ucd.normalize("NFC", d) == c and nfc(d) == d:
        yield d[1]


young = {c for c in points if is_young_mark(c)} | {h for c in points for h in young_halves(c)}
ranges = []
for c in sorted(map(ord, young)):
    if ranges and ranges[-1][1] == c - 1:
        ranges[-1][1] = c
    else:
        ranges.append([c, c])
line = "   "
for a, b in ranges:
    item = " {0x%X, 0x%X}," % (a, b)
    if len(line + item) > 100:
        print(line)
        line = "   "
    line += item
print(line)

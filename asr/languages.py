"""Whisper's languages: the English names that its servers answer with, as ISO 639-1 codes."""

from __future__ import annotations

_NAMES = (
    "af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, ba bashkir, be belarusian, "
    "bg bulgarian, bn bengali, bo tibetan, br breton, bs bosnian, ca catalan, cs czech, cy welsh, "
    "da danish, de german, el greek, en english, es spanish, et estonian, eu basque, fa persian, "
    "fi finnish, fo faroese, fr french, gl galician, gu gujarati, ha hausa, haw hawaiian, "
    "he hebrew, hi hindi, hr croatian, ht haitian creole, hu hungarian, hy armenian, "
    "id indonesian, is icelandic, it italian, ja japanese, jw javanese, ka georgian, kk kazakh, "
    "km khmer, kn kannada, ko korean, la latin, lb luxembourgish, ln lingala, lo lao, "
    "lt lithuanian, lv latvian, mg malagasy, mi maori, mk macedonian, ml malayalam, mn mongolian, "
    "mr marathi, ms malay, mt maltese, my myanmar, ne nepali, nl dutch, nn nynorsk, no norwegian, "
    "oc occitan, pa punjabi, pl polish, ps pashto, pt portuguese, ro romanian, ru russian, "
    "sa sanskrit, sd sindhi, si sinhala, sk slovak, sl slovenian, sn shona, so somali, "
    "sq albanian, sr serbian, su sundanese, sv swedish, sw swahili, ta tamil, te telugu, "
    "tg tajik, th thai, tk turkmen, tl tagalog, tr turkish, tt tatar, uk ukrainian, ur urdu, "
    "uz uzbek, vi vietnamese, yi yiddish, yo yoruba, yue cantonese, zh chinese"
)
_CODES = {name: code for code, name in (pair.split(" ", 1) for pair in _NAMES.split(", "))}
_WHISPER_JAVANESE = "jw"  # was withdrawn from the standard
_CODES["javanese"] = "jv"
WHISPER_LANGUAGES = frozenset(_CODES.values())


def language_code(name: str) -> str | None:
    """`english` or `en` as `en`; None for what is not a language that Whisper knows."""
    name = name.strip().lower()
    return _CODES.get(name) or (name if name in _CODES.values() else None)


def to_whisper(code: str) -> str:
    """What Whisper's models call a language."""
    return _WHISPER_JAVANESE if code == "jv" else code


def from_whisper(code: str) -> str:
    """The inverse of `to_whisper`."""
    return "jv" if code == _WHISPER_JAVANESE else code

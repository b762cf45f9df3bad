"""Words that the PTB tokenizer knows by heart, and its classes of characters.

Found by asking the reference (Stanford PTBTokenizer of pycocoevalcap 1.2) about 590,000 words in three cases and about
every character of the basic plane, each in several places.
"""

from __future__ import annotations

#: Abbreviations that keep their dot before anything.
TITLES = (
    "adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov "
    "govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps "
    "rev sen sens sfc sgt spc st ste supt supts treas vs wm"
)

#: Abbreviations that keep their dot, and end a sentence besides when a capital or two spaces follow.
ENDINGS = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri ga "
    "inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt sep "
    "sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo bancorp"
)
#: As above, with a capital first letter only.
ENDINGS_CAPITAL = "ark az del ill la mass miss ore pa tex wash"

#: Abbreviations only before a digit.
BEFORE_DIGIT = "art ca fig figs no nos op pp prop"

#: Words that start a sentence: a single letter's dot before one of them ends the sentence before it.
STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once "
    "One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"
)

#: Characters inside words and abbreviations, but not inside hyphenated or numeric ones (marks and modifiers).
MARKS = (
    "\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0378-\u0379\u0384-\u0385\u03f6\u0483-\u0487"
    "\u055a-\u055f\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4"
    "\u06e7-\u06ed\u06fd-\u06fe\u070f\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c\u093e-\u094e"
    "\u0951-\u0955\u0962-\u0963\u0981-\u0983\u09bc\u09be-\u09c4\u09c7-\u09c8\u09cb-\u09cd\u09d7\u09e2-\u09e3"
    "\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd"
    "\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc"
    "\u0ec8-\u0ecd"
)

#: Characters that are a token by themselves. Everything that is no letter, digit, mark, symbol or in a rule is dropped.
SYMBOLS = (
    r"+%&=@<>|\\^~\u00a6-\u00a9\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00d7\u00f7\u0387\u05be\u05c0\u05c3\u05c6"
    r"\u05f3-\u05f4\u0600-\u0603\u0606-\u060a\u060c\u0614\u061b\u061e\u066a\u066d\u0703-\u070d\u07f6-\u07f8"
    r"\u0964-\u0965\u0e4f\u1fbd\u2016-\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u207a-\u207e"
    r"\u208a-\u208e\u2100-\u2101\u2103-\u2106\u2108-\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e"
    r"\u213a-\u213b\u2140-\u2144\u214a-\u214d\u214f\u2190-\u2bff\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    r"\uff5b-\uff65"
)

#: Words with an apostrophe that stay whole; elsewhere it splits.
APOSTROPHE_WORDS = (
    r"'n'?|[ldj]'|dunkin'|ol'|d'ye|d'you|'em|'till?|'til|'cause|nor'easter|c'mon|e'er|ne'er|o'er|s'mores|ev'ry|li'l|nat'l|"
    r"'[2-9]0s|o'clock|ma'am|cap'n|hallowe'en|somethin'|cont'd\.?|'twas"
)

#: Endings of file names that stay with the name.
FILE_ENDINGS = (
    "(?:c|h|x|gz|pl|ps|py|bat|bmp|cgi|cpp|dll|docx?|exe|gif|html?|jar|java|jpe?g|mov|mp3|pdf|php|png|ppt|sql|tar|txt|"
    "wav|xml|zip|class)"
)

"""Turns of phrase that take a model's instructions away, ask for them, or speak to the model from inside a document.

Each rule is a cheap hint, which is part of one automaton, and the expression itself, looked for only where the hint
occurs. `strong` rules are enough for a verdict; the others raise the model's score. They are written for precision:
what they let pass, the model has to find.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import re2

from policy import scan
from policy.text import encode


class Rule(NamedTuple):
    """`points` are added to the score of a text where the rule matches; `reason` is the code's last word."""

    reason: str
    points: float
    hint: str
    expression: str

    @property
    def strong(self) -> bool:
        """It is enough by itself."""
        return self.points >= STRONG


STRONG: Final = 100.0
WEAK: Final = 1.5

_PIECE: Final = 4096
_OVERLAP: Final = 512
"""Longer than any match."""

_GAP = r"\W{1,6}"
_WORDS = rf"(?:[\w']{{1,20}}{_GAP})"
_SPACES = r"[\s,.:]{1,4}"
_ANY = rf"(?:[^\s.]{{1,24}}{_SPACES})"
_NEW = r"(?:previous|prior|above|earlier|preceding|former|past|foregoing|initial|original|existing|system|developer'?s?|your|these|those|given)"
_ORDERS = (
    r"(?:instructions?|instuctions?|directions|directives?|guidelines?|commands?|orders|prompts?|restrictions|programming|constraints|"
    r"training|assignments|tasks|polic(?:y|ies))"
)
_DROP = (
    r"(?:ignor(?:e|es|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|es|ing)|discard|neglect|bypass|"
    r"(?:do not|don'?t|stop|never) follow(?:ing)?|pay no attention to|set aside)"
)
_SHOW = (
    r"(?:reveal|show|print|repeat|output|tell|display|give|write|leak|share|recite|dump|disclose|copy|send|return|expose|provide|"
    r"state|echo|quote|spell|list|summari[sz]e|translate|encode|what (?:is|are|was|were|does)|what'?s)"
)
_OWN = r"(?:system|initial|original|hidden|secret|internal|developer|base|pre|confidential|starting|first)"
_LIMITS = (
    r"(?:restrictions?|guidelines?|limit(?:s|ations?)|polic(?:y|ies)|filters?|constraints?|rules|standards|boundaries)"
)

_DROP_HINT = (
    r"(?i)ignor|disregard|forget|overrid|discard|neglect|bypass|(?:not|n'?t|stop|never) follow|no attention|set aside"
)
_ABROAD: Final = (
    # verbs that drop, then something earlier, then orders; one line for each language
    ("ignorier|vergiss|vergessen sie|vergesst|missacht|abweichend", r"(?:ignorier\pL*|vergiss|vergessen sie|vergesst|missachte\pL*|abweichend)", r"(?:alle[nms]?|deine|obige[nr]?|vorherige[nr]?|bisherige[nr]?|vorige[nr]?|frühere[nr]?)", r"(?:anweisung|instruktion|vorgabe|aufgabe|befehl|regel)\pL*"),
    ("ignore[zr]?|oublie|tiens? pas compte|tenez pas compte", r"(?:ignore[zr]?|oublie[zr]?|t(?:iens|enez) pas compte)", r"(?:toutes|tout|tes|vos|des|les|ces)", r"(?:instructions|consignes|directives|règles|ordres)"),
    ("ignor[ae]|olvid|descarta|caso omiso", r"(?:ignor[ae]r?|olvid[ae]r?|descarta|haz caso omiso de)", r"(?:todas?|tus|las|todo)", r"(?:instrucciones|órdenes|reglas|directrices|indicaciones)"),
    ("ignora|dimentica|trascura", r"(?:ignora|dimentica|trascura)(?:re)?", r"(?:tutte|tutto|le|tue)", r"(?:istruzioni|regole|direttive|indicazioni)"),
    ("ignor|esque|desconsider", r"(?:ignor[ea]r?|esque[çc]a|desconsidere)", r"(?:todas?|as|suas|tudo)", r"(?:instruções|instrucoes|regras|diretrizes|ordens)"),
    ("negeer|vergeet", r"(?:negeer|vergeet)", r"(?:alle|je|de)", r"(?:instructies|opdrachten|regels|aanwijzingen)"),
    ("zignoruj|ignoruj|zapomnij|pomiń", r"(?:zignoruj|ignoruj|zapomnij|pomiń)", r"(?:o|wszystkie|wszystkich|poprzednie|swoje)", r"(?:instrukcj|poleceni|zasad)\pL*"),
    ("игнорируй|забудь|проигнорируй|ігноруй", r"(?:про)?(?:игнорируй|забудь|ігноруй)(?:те)?", r"(?:все|всё|про|усі|предыдущие|свои)", r"(?:инструкци|указани|правил|інструкці|команд)\pL*"),
    ("ignorera|glöm|ignorer ", r"(?:ignorera|glöm|ignorer)", r"(?:alla|alle|dina|tidigare)", r"(?:instruktion|anvisning|regl)\pL*"),
    ("abaikan|lupakan", r"(?:abaikan|lupakan)", r"(?:semua|segala)", r"(?:instruksi|perintah|aturan|arahan)"),
    ("bỏ qua|quên", r"(?:bỏ qua|quên)", r"(?:tất|mọi|các|hết)", r"(?:hướng dẫn|chỉ dẫn|lệnh|quy tắc)"),
    ("balewalain|kalimutan|huwag pansinin", r"(?:balewalain|kalimutan|huwag pansinin)", r"(?:ang|lahat)", r"(?:tagubilin|utos|panuto|instruksyon)\pL*"),
    ("ignoruj|zapomeň|ignoră|uită", r"(?:ignoruj|zapomeň|ignoră|uită)", r"(?:všechny|na|toate|tot)", r"(?:pokyn|instruk|instruc)\pL*"),
)  # fmt: skip
_ORDERED_BEFORE: Final = (
    # languages that put the verb last, or use no spaces: earlier orders, then the verb
    ("talimat|komut", r"(?:talimat|komut|kural)\pL*[^.\n]{0,24}(?:yok say|unut|görmezden gel|dikkate alma)"),
    ("निर्देश|आदेश", r"(?:निर्देश|आदेश)[^।.\n]{0,30}(?:अनदेखा|नज़रअंदाज|नजरअंदाज|भूल)"),
    ("নির্দেশ", r"নির্দেশ[^।.\n]{0,30}(?:উপেক্ষা|ভুলে)"),
    (
        "忽略|无视|忘记|忘掉|忽視|無視",
        r"(?:忽略|无视|忘记|忘掉|忽視|無視)[^。\n]{0,16}(?:指令|指示|说明|規則|规则|提示)",
    ),
    ("指示|命令", r"(?:指示|命令|ルール|プロンプト)[^。\n]{0,12}(?:無視|忘れ)"),
    ("지시|명령|지침", r"(?:지시|명령|지침)[^.\n]{0,16}(?:무시|잊)"),
    ("تجاهل|انس ", r"(?:تجاهل|انس)[^.\n]{0,24}(?:التعليمات|الأوامر|تعليمات|القواعد)"),
    ("دستور", r"دستور[^.\n]{0,30}(?:نادیده|فراموش)"),
    ("התעלם|שכח", r"(?:התעלם|שכח)[^.\n]{0,24}(?:הוראות|ההוראות)"),
    ("เพิกเฉย|ละเว้น|ลืม", r"(?:เพิกเฉย|ละเว้น|ลืม)[^\n]{0,24}(?:คำสั่ง|คําสั่ง|คำแนะนำ|คําแนะนํา)"),
    ("αγνόησε|ξέχασε", r"(?:αγνόησε|ξέχασε)[^.\n]{0,40}(?:οδηγίες|εντολές)"),
)

RULES: Final[tuple[Rule, ...]] = (
    Rule("override", STRONG, _DROP_HINT, rf"\b{_DROP}{_GAP}{_WORDS}{{0,4}}{_NEW}{_GAP}{_WORDS}{{0,3}}{_ORDERS}\b"),
    Rule("override", STRONG, _DROP_HINT, rf"\b(?:ignore|disregard|forget|override){_GAP}(?:all|any|everything|anything){_GAP}{_WORDS}{{0,2}}(?:{_ORDERS}|rules)\b"),
    Rule("override", STRONG, _DROP_HINT, rf"\b(?:ignore|disregard|forget){_GAP}(?:all|everything|anything|what){_GAP}{_WORDS}{{0,5}}(?:above|before(?: this)?|you (?:know|learned|were told)|told you|said (?:above|so far|before)|previously)\b"),
    Rule("override", STRONG, _DROP_HINT, rf"\b(?:ignore|disregard|forget){_GAP}(?:the )?(?:above|foregoing|preceding|previous)(?:{_GAP}(?:and|text|prompt|conversation|context|rules)\b|[.:;!])"),
    Rule("leak", STRONG, r"(?i)prompt|instructions", rf"\b{_SHOW}{_GAP}{_WORDS}{{0,4}}(?:your|the|its){_GAP}{_WORDS}{{0,1}}{_OWN}[ -]?(?:system )?(?:prompt|instructions)\b(?: (?:verbatim|word))?"),
    Rule("leak", STRONG, r"(?i)instructions|prompt|rules|guidelines", rf"\b(?:reveal|show|print|repeat|output|tell|display|give|leak|recite|dump|disclose|what (?:is|are|were)){_GAP}(?:me{_GAP})?(?:all )?(?:of )?your{_GAP}{_WORDS}{{0,2}}(?:instructions|prompt|directives|guidelines)\b"),
    Rule("leak", STRONG, r"(?i)above|before this|so far", rf"\b(?:repeat|print|output|dump|recite|echo){_GAP}{_WORDS}{{0,4}}(?:everything|words|instructions|prompts?|all the text|whole text|sentences?|conversation){_GAP}{_WORDS}{{0,3}}(?:above|before this|so far)\b"),
    Rule("persona", STRONG, r"(?i)anything now|jailb|developer mode|unfiltered|uncensored|unrestricted|\bDAN\b", rf"\bdo anything now\b|\bdeveloper mode (?:enabled|output|v\d)|\b(?:you are|you're|act(?:ing)? as|become|pretend(?:ing)? to be|simulate|respond as|enter|named|called){_GAP}{_WORDS}{{0,5}}(?:unfiltered|uncensored|jailbroken|unrestricted|DAN)\b"),
    Rule("persona", STRONG, r"(?i)ethical|moral|content polic|safety|openai", rf"\b(?:ai|chatbot|model|assistant|gpt|you|he|she|it|who|that|which)\b[^.\n]{{0,80}}\b(?:no|without|free (?:of|from)|not (?:bound|limited|restricted) by|unbound by|ignores?|bypass(?:es)?|does not (?:have|follow|care)|doesn'?t (?:have|follow|care)|do not have|don'?t have)\b[^.\n]{{0,24}}\b(?:ethical|moral|content|safety|openai'?s?){_GAP}{_WORDS}{{0,3}}{_LIMITS}\b"),
    Rule("markup", STRONG, r"(?i)<\|im_|<\|(?:system|user|assistant)|\[/?inst\]|<</?sys>>|###|\[system|\[admin", r"<\|im_(?:start|end)\|>\s{0,4}(?:system|assistant|user)|<\|(?:system|user|assistant)\|>|<</?sys>>|###\s?\((?:system|admin)[ _]?(?:message)?\)|\[(?:system|admin)\]\(#"),
    Rule("embedded", WEAK, r"(?i)\b(?:ai|assistant|llm|language model|chatbot|bot|agent)\b", rf"\b(?:note|message|instructions?|attention|dear|hello|hey|important){_GAP}(?:to|for)?[^a-z]{{0,4}}(?:the |any |all )?(?:ai|llm|language model|assistant|bot|chatbot|agent)s?\b|\b(?:if|when) you(?: are|,)? (?:an? |the )?(?:ai|llm|language model|assistant)\b"),
    Rule("embedded", WEAK, r"(?i)without (?:ask|tell|inform|notif)|not (?:mention|tell|inform|alert|notify)", r"\bwithout (?:asking|telling|informing|notifying)[^.\n]{0,12}(?:user|again|confirmation|them)|\bdo(?:n'?t| not) (?:mention|tell|inform|alert|notify)[^.\n]{0,20}\b(?:user|this|anyone)\b"),
    Rule("embedded", WEAK, r"(?i)before you|<information>|system_message|system note|systemhinweis|system override", r"\bbefore you (?:can )?(?:answer|reply|respond|solve|summari|finish|complete|continue)\w*[^.\n]{0,80}(?:please do|do the following|first|call|send|append|include)|<information>|\(system_message\)|\bsystem ?(?:note|hinweis|override)\b ?[:*\]]"),
    *(Rule("override", STRONG, rf"(?i){hint}", rf"{drop}{_SPACES}{_ANY}{{0,3}}{earlier}{_SPACES}{_ANY}{{0,4}}{orders}") for hint, drop, earlier, orders in _ABROAD),
    *(Rule("override", STRONG, rf"(?i){hint}", expression) for hint, expression in _ORDERED_BEFORE),
)  # fmt: skip


class Rules:
    """The rules, compiled. Which of them match is all that is asked, so nothing is captured: RE2 then needs about 9 µs
    for 4 KB and expression (with captures, or with classes of Unicode in English ones, 150 to 400). The hints take 7."""

    def __init__(self, engine: scan.Engine = scan.DEFAULT_ENGINE) -> None:
        self._hints = engine(tuple(rule.hint for rule in RULES))

    def matching(self, text: str) -> Iterator[Rule]:
        """The rules that match, in no order; a long text is looked at in pieces, since most have no hint in them."""
        matched: set[int] = set()
        for start in range(0, max(len(text) - _OVERLAP, 1), _PIECE):
            data = scan.readable(encode(text[start : start + _PIECE + _OVERLAP]))
            for number in {*self._hints(data)} - matched:
                if _expression(number).search(data) is not None:
                    matched.add(number)
                    yield RULES[number]


@functools.cache
def _expression(number: int) -> Any:
    """Compiled when its hint first occurs."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return re2.compile(f"(?i){RULES[number].expression}", options)

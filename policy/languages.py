"""Which language a text is in: by its script, and among languages that share one, by its commonest words and letters.

No model and no table of n-grams: two dozen function words of each language and the letters that only some of them use
tell 57 languages apart as soon as there are a few words of running text; docs/policies/language-validator.md has the
figures. It promises nothing for a single word, a list of names or program code, and then says so (`None`).
Code fences, links and mail addresses are left out. Codes are ISO 639-1. It takes at most 0.3 ms.
"""

from __future__ import annotations

import collections
import functools
import re
from typing import Final, NamedTuple

MAX_CHARACTERS: Final = 1024
"""So much of a text is looked at: its beginning and its end."""

SHORTEST: Final = 12
"""Fewer letters than these say nothing."""

_CLUE = 2.0
"""The least weight of words and letters that speak for a language; one common word is not enough."""

_CLEAR = 0.53
"""Two languages that are as likely as each other are no answer."""

SCRIPTS: Final[dict[str, str]] = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Burmese": "\u1000-\u109f",
    "Georgian": "\u10a0-\u10ff\u1c90-\u1cbf",
    "Amharic": "\u1200-\u137f",
    "Khmer": "\u1780-\u17ff",
    "Armenian": "\u0530-\u058f",
    "Hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Kana": "\u3040-\u30ff\uff66-\uff9f",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
}

_ONE_LANGUAGE: Final = {
    "Greek": "el", "Hebrew": "he", "Bengali": "bn", "Gurmukhi": "pa", "Gujarati": "gu", "Tamil": "ta", "Telugu": "te",
    "Kannada": "kn", "Malayalam": "ml", "Sinhala": "si", "Thai": "th", "Lao": "lo", "Burmese": "my", "Georgian": "ka",
    "Amharic": "am", "Khmer": "km", "Armenian": "hy", "Hangul": "ko", "Kana": "ja", "Han": "zh",
}  # fmt: skip

WORDS: Final[dict[str, str]] = {
    "en": "the of and to in is that it for you was with on are as this be at have from or by not but what all were we "
    "when your can said there use an each which do how their if will about out then them these would been has more who "
    "please should where why i my me does could",
    "de": "der die und das den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er "
    "hat dass "
    "sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr "
    "durch ich "
    "wir ihr kann was wenn bitte mein alle",
    "fr": "comment peux dois dire faire sans sous très bien aussi encore quand donc si mes nos ils elles moi toi me te "
    "le la les et des du une est dans que qui pour pas sur avec ce il au plus par ne se sont mais ou cette ses "
    "aux "
    "comme vous nous je elle sa leur son tout être fait même ces mon votre peut était avez où quel quelle veuillez "
    "aucun",
    "es": "el la los las y del que en un una por con para es se no al lo como más pero sus le ya este sí porque esta "
    "entre "
    "cuando muy sin sobre también me hasta hay donde quien desde todo nos durante uno ni contra ese eso mi qué su "
    "está ser "
    "son cómo puede usted",
    "pt": "o os as e do da dos das que em um uma para com não por mais ao se na no como mas foi ele é sua ou ser "
    "quando muito "
    "há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos seus quem nas me esse você "
    "são seu "
    "minha pode",
    "it": "il lo la gli le e di che è un una per non con del della dei delle si da al alla nel nella sono come più "
    "anche ma "
    "ha questo questa dal se o ed suo sua io mi ci chi cosa essere può perché quando ai dello degli loro tutti "
    "hanno ogni",
    "nl": "de het een en van ik te dat die in is niet zijn op aan met als voor had er maar om hem dan zou of wat "
    "mijn men dit "
    "zo door over ze zich bij ook tot je mij uit der daar haar naar heb hoe heeft hebben deze u want nog zal me zij "
    "nu geen "
    "omdat worden wordt kan deze",
    "sv": "och att det i en jag hon som han på den med var sig för så till är men ett om hade de av icke mig du "
    "henne då sin "
    "nu har inte hans honom skulle hennes där min man ej vid kunde något från ut när efter upp vi dem vara vad över "
    "än kan "
    "eller detta inga",
    "da": "og i jeg det at en den til er som på de med han af for ikke der var mig sig men et har om vi min havde "
    "ham hun nu "
    "over fra du ud sin dem os op hvor eller hvad skal selv her alle vil blev kunne ind når være noget hvis denne "
    "efter "
    "dig meget også hver blive bliver kun mellem dette findes angiv indtast værdi disse uden ved kan igen må",
    "nb": "og i jeg det at en den til er som på de med han av for ikke der var meg seg men et har om vi min hadde "
    "henne "
    "nå over fra du ut sin dem oss opp hvor eller hva skal selv her alle vil ble kunne inn når være noe noen hvis "
    "denne "
    "etter deg mye også hver bli blir kun mellom dette finnes oppgi skriv verdi disse uten ved kan igjen må ditt bruk "
    "bruke ingen flere",
    "fi": "ja on ei että se hän oli mutta ovat kun niin myös tai kuin joka jos mitä mikä sen sitä olen olet olla "
    "minä sinä "
    "me te he tämä tuo nämä ne vain nyt jo sekä ole kanssa mukaan eivät voi joka tässä siitä kaikki tämän jonka ettei",
    "pl": "i w nie na się z do to że jest o jak po co ale za od przez tak czy jego dla tylko był być ma by już jej "
    "przy "
    "było który która które może ich są tym tego są te jako lub oraz ten ta mnie pan nas proszę nie jaki jaka bez",
    "cs": "a v se na je že to s z do o k i jako za by ale pro tak po ve jeho jsem od jsou byl která který které co "
    "si nebo "
    "být jen také až ho při už není podle mezi před však má jak kde musí této tento toto prosím bude nejsou",
    "sk": "a v sa na je že to s z do o k aj ako za by ale pre tak po vo jeho som od sú bol ktorá ktorý ktoré čo si "
    "alebo "
    "byť len tiež až ho pri už nie podľa medzi pred však má kde musí tejto tento toto prosím bude ich môže",
    "sl": "in v je na se da so za z ki pa ne tudi s po kot ali bi o bil do pri od iz ter še ni kako to sem lahko če "
    "bo jih "
    "ga med samo zaradi ima več kar mora te ta tega brez vsi niso",
    "hr": "i u je se na da su za od s a koji što ne o kao to iz bi ili samo do nije po te biti ali sve kako može ako "
    "koja "
    "koje jer sam će ima pri bio ovaj ova ovo više već smo ste gdje nema mora treba",
    "ro": "și de în a la cu pe nu că este un o pentru din mai sau ce care se au fost sunt ca dar prin după fi lui "
    "ale cel "
    "când dacă cum acest această sa îi ei el ea nici am ai toate fără către trebuie poate",
    "hu": "a az és hogy nem is egy ez meg de van csak már mint ki volt el még vagy azt ha kell mert lesz így úgy "
    "minden "
    "mi nincs szerint után között lehet ezt aki amely ami én te ő nagyon több kérem adja érvényes",
    "tr": "ve bir bu da de için ile ne çok daha gibi olarak o mi ama var en kadar sonra ben sen biz siz ki değil "
    "olan her "
    "şey ya veya mı nasıl neden ise göre sadece bana olduğu tarafından lütfen yok bunu hiçbir geçerli",
    "vi": "và của là có được cho không các một trong những người với để này đã khi như từ đến về tôi bạn cũng ở ra "
    "nhưng "
    "sẽ vào thì phải nếu theo lại bị hơn rằng thế hãy hoặc chỉ",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada oleh atau sudah kami "
    "mereka "
    "bisa anda adalah kita dia seperti telah bahwa lebih apa bagaimana harus dapat jika kepada tersebut",
    "et": "ja on ei et see ta oli aga kui ka või nii mis kes selle seda ma sa me te nad oma pole ning siis veel juba "
    "olen "
    "olid kas mitte vaid nende peab ole saab olema",
    "lv": "un ir ar no uz par ka kas tas šis nav bet vai kā arī lai pēc es tu mēs jūs viņš tā to pie ja tikai būt "
    "var bija "
    "vēl jau šo ko tiek nevar lūdzu",
    "lt": "ir yra su iš į ne kad kaip bet tai buvo jis ji mes jūs aš tik ar už po dėl prie apie kurie kuris jau dar "
    "nėra "
    "bei taip gali būti turi arba šis šį prašome",
    "ca": "el la els les i de que en un una per amb és no del al es com més però són aquest aquesta ha dels seu seva "
    "també "
    "o hi ho molt quan si des on fins sense ser pot heu cal cap està",
    "ru": "и в не на я что он с как это по но они к у ты из мы за вы так же от для о её его только был бы мне было "
    "или когда "
    "уже если есть ещё может все быть нет чтобы до во этот при который меня вас нас со них где эта их чем необходимо",
    "uk": "і в не на я що він з як це по але вони до у ти із ми за ви так же від для про її його тільки був би мені "
    "було або "
    "коли вже якщо є ще може всі бути немає щоб та й цей при який мене вас нас зі них де ця їх чи має",
    "bg": "как кои преди след много само също защо беше без който края които ако през и в не на аз че той с като "
    "това по но те към у ти от ние за вие така да е са се ще си му ѝ ги или когато "
    "вече "
    "ако има още може всички бъде няма до при който която които мен вас нас със тях къде тази им чрез трябва",
    "sr": "и у не на ја да он с као то по али они ка ти из ми за ви тако је су се ће си му јој или када већ ако има "
    "још може "
    "сви бити нема до при који која које мене вас нас са њих где ова им што од није морате",
    "be": "і ў не на я што ён з як гэта па але яны да у ты са мы за вы так жа ад для пра яе яго толькі быў б мне "
    "было ці калі "
    "ужо калі ёсць яшчэ можа усе быць няма каб гэты пры які мяне вас нас іх дзе гэтая",
    "mk": "и во не на јас дека тој со како тоа по но тие кон ти од ние за вие така да е се ќе си му ја ги или кога "
    "веќе ако "
    "има уште може сите биде нема до при кој која кои мене вас нас нив каде оваа им што",
    "ar": "في من على إلى أن هذا هذه التي الذي ما لا مع عن كان أو كل قد هو هي ذلك بين بعد لم يكون كما إن أي عند لكن "
    "حتى ثم "
    "إذا غير يجب هل كيف هناك يمكن",
    "fa": "و در به از که این را با است برای آن یک خود تا بر هم نیز می شود شد ما یا کرد اگر هر بود باید اما چه من شما "
    "کند "
    "های هستند نیست نمی ای چگونه لطفا",
    "ur": "اور کے کی میں ہے کا سے کو یہ نے پر کہ نہیں ہیں ایک بھی تھا ہو اس وہ جو گیا تو کر لیے ان کیا ہم آپ یا تک",
    "hi": "के है में की और से का को हैं पर यह कि एक नहीं भी हो था इस ने वह लिए कर जो तो या हम आप क्या कैसे करें कोई मैं",
    "mr": "आहे आणि या च्या ते मध्ये हे एक नाही की होते आहेत तर त्या केले साठी पण असे काय मी तो व ला करा",
    "ne": "छ र को मा यो हो छन् पनि गर्न लागि एक थियो भने तर हुन्छ त्यो भएको गरेको गर्नुहोस् तपाईं म के छैन",
}
"""The commonest words of languages that share a script; a word that several of them use counts for less."""

LETTERS: Final[dict[str, str]] = {
    "de": "ßäöü",
    "fr": "êèàùçœëîôé",
    "es": "ñ¿¡áíóúé",
    "pt": "ãõçâêáéíóú",
    "it": "òàùìèé",
    "sv": "åäö",
    "da": "æøå",
    "nb": "æøå",
    "fi": "äö",
    "pl": "łąęśźżćńó",
    "cs": "ěřůčšžýáíéúťďň",
    "sk": "ľĺŕôäčšžýáíéúťďň",
    "sl": "čšž",
    "hr": "čćđšž",
    "ro": "ățșşţâî",
    "hu": "őűáéíóöúü",
    "tr": "ğışçöü",
    "vi": "ơưđăạảấầậắặẹẻẽếềểễệịỉọốồổỗộớờởỡợụủứừửữựỳỹ",
    "et": "õäöü",
    "lv": "āēīūļņģķčšž",
    "lt": "ėęįųūąčšž",
    "ca": "çàèòïü·",
    "ru": "ыэёъ",
    "uk": "іїєґ",
    "bg": "ъ",
    "sr": "ђћјљњџ",
    "be": "ўіыэё",
    "mk": "ѓќѕјљњџ",
    "fa": "پچژگیک",
    "ur": "ٹڈڑںہےھ",
    "ar": "ةىيك",
}
"""Letters that a language uses and most others of its script do not; one that several use counts for less."""

CODES: Final = tuple(sorted({*WORDS, *_ONE_LANGUAGE.values()}))
"""The languages that can be told apart."""

_LEFT_OUT = (
    ("`", re.compile(r"```.{0,4000}?(?:```|$)|`[^`\n]{1,200}`", re.DOTALL)),
    ("://", re.compile(r"[a-z]{2,6}://\S{1,400}")),
    ("@", re.compile(r"\S{1,64}@\S{1,64}")),
)
_SCRIPTS = {name: re.compile(f"[{ranges}]") for name, ranges in SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:[\u0900-\u0dff]+[^\W\d_]*)*")
_SHARING = {
    "Cyrillic": ("ru", "uk", "bg", "sr", "be", "mk"),
    "Arabic": ("ar", "fa", "ur"),
    "Devanagari": ("hi", "mr", "ne"),
}


class Guess(NamedTuple):
    """A language with its share of all clues, 0 to 1; `None` where there is too little to tell."""

    language: str | None
    confidence: float


def identify(text: str) -> Guess:
    """The language that most of a text is in."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} {text[-MAX_CHARACTERS // 2 :]}"
    for sign, pattern in _LEFT_OUT:
        if sign in text:
            text = pattern.sub(" ", text)
    letters = _letters(text)
    total = sum(letters.values())
    if not total:
        return Guess(None, 0.0)
    script, count = max(letters.items(), key=lambda item: item[1])
    if letters.get("Kana", 0) * 10 >= total and script in ("Kana", "Han"):
        return Guess("ja", (letters["Kana"] + letters.get("Han", 0)) / total)
    if script in _ONE_LANGUAGE:
        return Guess(_ONE_LANGUAGE[script], count / total) if count * 4 >= SHORTEST else Guess(None, 0.0)
    return _by_words(text, script) if count >= SHORTEST else Guess(None, 0.0)


def _letters(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for character, times in collections.Counter(text).items():
        if script := _script(character):
            counts[script] = counts.get(script, 0) + times
    return counts


@functools.lru_cache(maxsize=8192)
def _script(character: str) -> str:
    return next((name for name, letters in _SCRIPTS.items() if letters.match(character)), "")


def _by_words(text: str, script: str) -> Guess:
    words, letters = _clues(script)
    scores: dict[str, float] = {}
    for word, times in collections.Counter(_WORD.findall(text.lower())).items():
        for language, weight in words.get(word, ()):
            scores[language] = scores.get(language, 0.0) + weight * times
    if not text.isascii() or script != "Latin":
        for letter, times in collections.Counter(text.lower()).items():
            for language, weight in letters.get(letter, ()):
                scores[language] = scores.get(language, 0.0) + weight * times
    if not scores:
        return Guess(None, 0.0)
    (language, best), *others = sorted(scores.items(), key=lambda score: -score[1])[:2]
    if best < _CLUE:
        return Guess(None, 0.0)
    confidence = best / (best + (others[0][1] if others else 0.0))
    return Guess(language, confidence) if confidence >= _CLEAR else Guess(None, confidence)


Clues = dict[str, tuple[tuple[str, float], ...]]


@functools.cache
def _clues(script: str) -> tuple[Clues, Clues]:
    """Words and letters of the languages of a script, each with the languages it speaks for and how much."""
    elsewhere = {language for languages in _SHARING.values() for language in languages}
    languages = _SHARING.get(script) or tuple(language for language in WORDS if language not in elsewhere)
    return (
        _weighed({language: WORDS[language].split() for language in languages}, 1.5),
        _weighed({language: tuple(LETTERS.get(language, "")) for language in languages}, 0.8),
    )


def _weighed(clues: dict[str, list[str]] | dict[str, tuple[str, ...]], most: float) -> Clues:
    users: dict[str, set[str]] = {}
    for language, all_of_it in clues.items():
        for clue in all_of_it:
            users.setdefault(clue, set()).add(language)
    return {
        clue: tuple((language, _weight(clue, most) / len(languages) ** 0.5) for language in sorted(languages))
        for clue, languages in users.items()
    }


def _weight(clue: str, most: float) -> float:
    """A word of one letter may as well be a variable or a mark of a list."""
    return most / 3 if most > 1 and len(clue) == 1 and clue.isascii() else most

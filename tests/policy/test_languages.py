"""Which language a text is in."""

from __future__ import annotations

import pytest

from policy.languages import CODES, LETTERS, WORDS, identify


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Please tell me how I can renew my library card before the end of the month."),
        ("de", "Bitte sagen Sie mir, wie ich meinen Ausweis noch vor dem Ende des Monats verlängern kann."),
        ("fr", "Veuillez me dire comment je peux renouveler ma carte avant la fin du mois."),
        ("es", "Por favor, dígame cómo puedo renovar mi tarjeta antes de que termine el mes."),
        ("pt", "Por favor, diga-me como posso renovar o meu cartão antes do fim do mês."),
        ("it", "Per favore mi dica come posso rinnovare la mia tessera prima della fine del mese."),
        ("nl", "Kunt u mij vertellen hoe ik mijn kaart voor het einde van de maand kan verlengen?"),
        ("sv", "Kan du berätta för mig hur jag förnyar mitt kort innan månaden är slut?"),
        ("pl", "Proszę mi powiedzieć, jak mogę przedłużyć moją kartę przed końcem miesiąca."),
        ("cs", "Prosím, řekněte mi, jak si mohu prodloužit průkaz před koncem měsíce."),
        ("tr", "Lütfen ay sonundan önce kartımı nasıl yenileyebileceğimi ve ne kadar olduğunu söyleyin."),
        ("fi", "Kertokaa minulle, miten voin uusia korttini ennen kuin kuukausi on lopussa, kiitos."),
        ("vi", "Xin cho tôi biết làm thế nào để gia hạn thẻ của tôi trước cuối tháng."),
        ("id", "Tolong beri tahu saya bagaimana cara memperpanjang kartu saya sebelum akhir bulan ini."),
        ("ru", "Скажите, пожалуйста, как я могу продлить свой билет до конца этого месяца?"),
        ("uk", "Скажіть, будь ласка, як я можу продовжити свій квиток до кінця цього місяця?"),
        ("bg", "Моля, кажете ми как мога да подновя картата си преди края на месеца."),
        ("ar", "من فضلك أخبرني كيف يمكن تجديد البطاقة قبل نهاية هذا الشهر"),
        ("fa", "لطفا به من بگویید که چگونه می توانم کارت خود را تا پایان این ماه تمدید کنم"),
        ("hi", "कृपया मुझे बताएं कि मैं इस महीने के अंत से पहले अपना कार्ड कैसे नवीनीकृत कर सकता हूं"),
        ("el", "Πείτε μου πώς μπορώ να ανανεώσω την κάρτα μου."),
        ("he", "אנא ספר לי איך אני יכול לחדש את הכרטיס שלי"),
        ("zh", "请告诉我如何在月底之前续借我的借书证。"),
        ("ja", "月末までに図書館カードを更新する方法を教えてください。"),
        ("ko", "이번 달 말까지 도서관 카드를 갱신하는 방법을 알려주세요."),
        ("th", "กรุณาบอกวิธีต่ออายุบัตรของฉันก่อนสิ้นเดือน"),
        ("ka", "გთხოვთ მითხრათ როგორ განვაახლო ბარათი"),
    ],
)
def test_a_sentence(language: str, text: str) -> None:
    assert identify(text).language == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1234 5678",
        "OK",
        "Berlin Madrid Roma",
        "```python\nfor the in of: and to\n```",
        "https://example.com/the/and/of/that/is",
        "def f(x): return x",
    ],
)
def test_too_little_to_tell(text: str) -> None:
    assert identify(text).language is None


def test_the_larger_part_counts() -> None:
    german = "Das ist ein Satz, der sich mit dem Wetter und mit der Frage befasst, ob es morgen regnet. "
    assert identify(german * 3 + "This is one sentence in English.").language == "de"


def test_letters_and_words_are_of_known_languages() -> None:
    assert set(LETTERS) <= set(WORDS) <= set(CODES)
    assert len(CODES) > 40

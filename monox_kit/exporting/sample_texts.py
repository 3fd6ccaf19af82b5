"""Short texts in many languages, for checking an export where the user names no corpus."""

from __future__ import annotations

from monox_kit.data import Document

SAMPLE_TEXTS = (
    "Yes.",
    "The parcel arrived two days late, but everything in it was intact.",
    "I would not buy this lamp again: the switch failed after a week and nobody answered my mail.",
    "A small library for reading and writing calendar files, with a command-line program.",
    "Our train to the coast was cancelled, so we spent the afternoon in the museum instead.",
    "How do I reset the password if I no longer have access to the old address?",
    "The soup was cold, the waiter was kind, and the view over the harbour made up for both.",
    "Prices rose by 3.4 % in October; economists had expected a smaller increase.",
    "Das Paket kam zwei Tage zu spät an, aber der Inhalt war unbeschädigt.",
    "Die Wohnung ist hell und ruhig, nur der Aufzug funktioniert seit Wochen nicht.",
    "Le train a été annulé, nous avons donc passé l'après-midi au musée.",
    "Une petite bibliothèque pour lire et écrire des fichiers de calendrier.",
    "La sopa estaba fría, pero el camarero fue muy amable y la vista preciosa.",
    "¿Cómo puedo cambiar la contraseña si ya no tengo la dirección anterior?",
    "Il pacco è arrivato in ritardo, ma tutto era intatto.",
    "O quarto era pequeno, mas limpo, e o café da manhã valeu a pena.",
    "De trein naar de kust reed niet, dus bleven we de hele dag in de stad.",
    "Tåget var inställt, så vi tog bussen till stranden i stället.",
    "Pakken kom to dage for sent, men alt var helt.",
    "Juna peruttiin, joten vietimme iltapäivän museossa.",
    "Zupa była zimna, ale kelner był bardzo uprzejmy.",
    "Vlak byl zrušen, a tak jsme strávili odpoledne v muzeu.",
    "Balík prišiel o dva dni neskôr, ale obsah bol v poriadku.",
    "A leves hideg volt, de a kilátás mindenért kárpótolt.",
    "Kargo iki gün geç geldi ama içindekiler sağlamdı.",
    "Поезд отменили, поэтому мы провели день в музее.",
    "Посылка пришла с опозданием, но всё было цело.",
    "Кімната маленька, зате чиста, і сніданок був смачний.",
    "Το τρένο ακυρώθηκε και περάσαμε το απόγευμα στο μουσείο.",
    "وصل الطرد متأخرا يومين لكن كل شيء كان سليما.",
    "הרכבת בוטלה ולכן בילינו את אחר הצהריים במוזיאון.",
    "ट्रेन रद्द हो गई, इसलिए हमने दोपहर संग्रहालय में बिताई।",
    "รถไฟถูกยกเลิก เราจึงใช้เวลาช่วงบ่ายในพิพิธภัณฑ์",
    "Chuyến tàu bị hủy nên chúng tôi ở lại bảo tàng cả buổi chiều.",
    "Kereta dibatalkan, jadi kami menghabiskan sore di museum.",
    "电车取消了,所以我们下午去了博物馆。",
    "荷物は二日遅れて届きましたが、中身は無事でした。",
    "수프는 식었지만 종업원은 친절했고 전망이 훌륭했습니다.",
)


def check_documents(max_length: int) -> list[Document]:
    """The built-in texts, alone and joined to growing lengths."""
    texts = list(SAMPLE_TEXTS)
    joined = " ".join(SAMPLE_TEXTS)
    # About 4 characters a token: short to longer than the cut.
    texts += [joined[: 4 * length] for length in range(8, max_length + 8, 8)]
    return [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]

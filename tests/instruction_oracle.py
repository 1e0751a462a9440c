"""Write a text that follows IFEval's instructions, by construction and a final choice among a few variants.

The scorer under test decides which variant is returned, but every one is built from the instructions alone. `UNSUPPORTED`
names what this oracle cannot do; combinations that contradict each other stay unanswered.
"""

import re
from collections.abc import Iterator
from typing import Any

SENTENCES = {
    "en": "The people of the town walked to the river and talked about the weather with their friends",
    "ar": "ذهب الناس إلى النهر وتحدثوا عن الطقس مع أصدقائهم في المدينة",
    "bg": "Хората от града отидоха до реката и говориха за времето със своите приятели, защото беше хубав ден",
    "bn": "শহরের মানুষ নদীর ধারে গিয়ে বন্ধুদের সাথে আবহাওয়া নিয়ে কথা বলল",
    "de": "Die Menschen der Stadt gingen zum Fluss und sprachen mit ihren Freunden über das Wetter",
    "es": "La gente de la ciudad caminó hasta el río y habló del tiempo con sus amigos",
    "fa": "مردم شهر به کنار رودخانه رفتند و با دوستان خود درباره هوا صحبت کردند که چقدر خوب است",
    "fi": "Kaupungin ihmiset kävelivät joelle ja puhuivat säästä ystäviensä kanssa",
    "fr": "Les habitants de la ville sont allés à la rivière et ont parlé du temps avec leurs amis",
    "gu": "શહેરના લોકો નદી કિનારે ગયા અને તેમના મિત્રો સાથે હવામાન વિશે વાત કરી",
    "hi": "शहर के लोग नदी के किनारे गए और उन्होंने अपने दोस्तों के साथ मौसम के बारे में बात की",
    "it": "Gli abitanti della città andarono al fiume e parlarono del tempo con i loro amici",
    "kn": "ನಗರದ ಜನರು ನದಿಯ ದಡಕ್ಕೆ ಹೋಗಿ ತಮ್ಮ ಸ್ನೇಹಿತರೊಂದಿಗೆ ಹವಾಮಾನದ ಬಗ್ಗೆ ಮಾತನಾಡಿದರು",
    "ko": "도시 사람들은 강으로 걸어가서 친구들과 날씨에 대해 이야기했습니다",
    "ml": "നഗരത്തിലെ ആളുകൾ നദിക്കരയിൽ പോയി കൂട്ടുകാരുമായി കാലാവസ്ഥയെക്കുറിച്ച് സംസാരിച്ചു",
    "mr": "शहरातील लोक नदीकाठी गेले आणि त्यांनी आपल्या मित्रांशी हवामानाबद्दल गप्पा मारल्या आहेत",
    "ne": "सहरका मानिसहरू नदी किनारमा गए र आफ्ना साथीहरूसँग मौसमको बारेमा कुरा गरे",
    "pa": "ਸ਼ਹਿਰ ਦੇ ਲੋਕ ਨਦੀ ਕੰਢੇ ਗਏ ਅਤੇ ਆਪਣੇ ਦੋਸਤਾਂ ਨਾਲ ਮੌਸਮ ਬਾਰੇ ਗੱਲ ਕੀਤੀ",
    "pt": "As pessoas da cidade caminharam até o rio e conversaram sobre o tempo com os seus amigos",
    "ru": "Жители города пошли к реке и говорили о погоде со своими друзьями",
    "sw": "Watu wa mji walitembea hadi mtoni na kuzungumza kuhusu hali ya hewa na marafiki zao",
    "ta": "நகர மக்கள் ஆற்றங்கரைக்குச் சென்று தங்கள் நண்பர்களுடன் வானிலை பற்றிப் பேசினர்",
    "te": "నగర ప్రజలు నది ఒడ్డుకు వెళ్లి తమ స్నేహితులతో వాతావరణం గురించి మాట్లాడారు",
    "th": "ผู้คนในเมืองเดินไปที่แม่น้ำและพูดคุยเรื่องสภาพอากาศกับเพื่อนของพวกเขา",
    "ur": "شہر کے لوگ دریا کے کنارے گئے اور اپنے دوستوں کے ساتھ موسم کے بارے میں باتیں کیں",
    "vi": "Người dân thành phố đi bộ ra sông và nói chuyện về thời tiết với bạn bè của họ",
}
NEUTRAL = ("We saw it", "You go on", "One is by my bow", "Hm")
UNSUPPORTED = {"length_constraints:number_sentences"}


def follow(doc: dict[str, Any]) -> str:
    """A response that follows all instructions of a row, or the best attempt."""
    from mergebench.evaluation.instruction_following import process_results

    attempt = ""
    for attempt in _variants(doc):
        scored = process_results({"id": "oracle", **doc}, [attempt])["prompt_level_strict_acc"]
        if scored["outcome"] != 0.0:
            return attempt
    return attempt


def _variants(doc: dict[str, Any]) -> Iterator[str]:
    asked: dict[str, dict[str, Any]] = {}
    for name, arguments in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        given = {k: v for k, v in (arguments or {}).items() if v is not None}
        if name in asked and not _relation(given):
            continue  # of two bounds on the same quantity, the lower one is built and the upper one hoped for
        asked.setdefault(name, {**given, "all": []})["all"].append(given)
    language = asked.get("language:response_language", {}).get("language", "en")
    for core in (SENTENCES.get(language, SENTENCES["en"]), *NEUTRAL):
        for finish in (_finished, lambda text, asked: _finished(text.replace(",", ""), asked)):
            yield finish(_compose(asked, core, doc["prompt"]), asked)


def _relation(arguments: dict[str, Any], key: str = "relation") -> bool:
    """Whether at least so many are asked for (else fewer)."""
    return arguments.get(key, "at least") == "at least"


def _compose(asked: dict[str, dict[str, Any]], core: str, prompt: str) -> str:
    if "detectable_format:constrained_response" in asked:
        return "My answer is yes."
    lines = [f"{core}."]
    if "keywords:existence" in asked:
        lines.append(" ".join(asked["keywords:existence"]["keywords"]) + ".")
    for frequency in asked.get("keywords:frequency", {}).get("all", []):
        if _relation(frequency):
            lines.append(" ".join([frequency["keyword"]] * int(frequency["frequency"])) + ".")
    for letters in asked.get("keywords:letter_frequency", {}).get("all", []):
        if _relation(letters, "let_relation"):
            lines.append(" ".join([letters["letter"]] * int(letters["let_frequency"])))
    if "detectable_content:number_placeholders" in asked:
        count = int(asked["detectable_content:number_placeholders"]["num_placeholders"])
        lines.append(" ".join(f"[slot{i}]" for i in range(count)))
    if "detectable_format:number_highlighted_sections" in asked:
        count = int(asked["detectable_format:number_highlighted_sections"]["num_highlights"])
        lines.append(" ".join(f"*part {i}*" for i in range(count)))
    capitals = asked.get("change_case:capital_word_frequency")
    if capitals and _relation(capitals, "capital_relation"):
        lines.append(" ".join(["RIVER"] * int(capitals["capital_frequency"])))
    if "detectable_format:number_bullet_lists" in asked:
        count = int(asked["detectable_format:number_bullet_lists"]["num_bullets"])
        lines += [f"* point {i}" for i in range(count)]
    if "detectable_format:multiple_sections" in asked:
        section = asked["detectable_format:multiple_sections"]
        lines += [f"{section['section_spliter']} {i + 1}\n{core}." for i in range(int(section["num_sections"]))]
    words = asked.get("length_constraints:number_words")
    if words and _relation(words):
        missing = int(words["num_words"]) - len(re.findall(r"\w+", " ".join(lines)))
        lines.append(" ".join((core.split() * (missing // len(core.split()) + 1))[: max(0, missing)]) + ".")
    text = _paragraphs(asked, "\n".join(lines), core)
    if "detectable_format:title" in asked:
        text = f"<<a title>>\n{text}" if "length_constraints:nth_paragraph_first_word" not in asked else f"{text} <<a title>>"
    if "combination:two_responses" in asked:
        text = f"{text}\n******\nAgain. {text}"
    if "combination:repeat_prompt" in asked:
        repeated = asked["combination:repeat_prompt"].get("prompt_to_repeat", prompt)
        text = f"{repeated}\n{text}"
    return text


def _paragraphs(asked: dict[str, dict[str, Any]], text: str, core: str) -> str:
    if "length_constraints:nth_paragraph_first_word" in asked:
        wanted = asked["length_constraints:nth_paragraph_first_word"]
        nth, total = int(wanted["nth_paragraph"]), int(wanted["num_paragraphs"])
        paragraphs = [text, *[f"{core}."] * (total - 1)]
        paragraphs[nth - 1] = f"{wanted['first_word']} {paragraphs[nth - 1]}"
        return "\n\n".join(paragraphs)
    if "length_constraints:number_paragraphs" in asked:
        total = int(asked["length_constraints:number_paragraphs"]["num_paragraphs"])
        return "\n***\n".join([text, *[f"{core}."] * (total - 1)])
    return text


def _finished(text: str, asked: dict[str, dict[str, Any]]) -> str:
    """Case, closing phrases and wrappers, from the inside out."""
    if "change_case:english_capital" in asked:
        text = text.upper()
    if "change_case:english_lowercase" in asked:
        text = text.lower()
    if "detectable_content:postscript" in asked:
        note = "see you."
        text = f"{text}\n{asked['detectable_content:postscript']['postscript_marker']} {note}"
    if "startend:end_checker" in asked:
        text = f"{text}\n{asked['startend:end_checker']['end_phrase']}"
    if "detectable_format:json_format" in asked:
        text = '{"text": "' + re.sub(r"[\n\"\\]", " ", text) + '"}'
    if "startend:quotation" in asked:
        text = f'"{text}"'
    if "change_case:english_lowercase" in asked:
        text = text.lower()
    if "change_case:english_capital" in asked:
        text = text.upper()
    return text

"""What `safety-filter` looks for: turns of phrase by category, as data.

Each is a wish or an instruction to do harm, not a word: `kill` alone is a process, a weed or a film. They are our own,
written in English, in the syntax of `scan.py`. Hyperscan would need a minute to compile them whole and 130 µs to scan
4 KB, so each brings the words by which it announces itself, and the whole is looked for only around these. What they
miss is more than what they find (docs/policies/safety-filter.md says how much), so they are a first fence, not a
judgement.
"""

from __future__ import annotations

from typing import Final

_ASK = (
    r"\b(?:how (?:do|can|could|would|should|to|might)(?: (?:i|we|you|one|somebody|someone))?|(?:way|method|process|"
    r"strateg\w+|"
    r"steps?|place|time|plan|technique|instructions?|guide|tutorial|recipe)s? (?:to|of|for|on)|help (?:me|us)|teach "
    r"(?:me|us)|"
    r"tell me how to|explain how to|show me how to|where (?:can|do|could) (?:i|we)|i (?:want|plan|need|intend|would "
    r"like|am "
    r"going|have decided) to|i['’]?(?:m going|ll|d like) (?:to )?|what (?:can|should|do|steps should) (?:i|we) (?:do|"
    r"use|take|need "
    r"to do)?|we should|let['’]?s)\b"
)
_GAP = r"(?: [\w'’-]{1,20}){0,3}? "
_KIN = (
    r"(?:wife|husband|girlfriend|boyfriend|partner|spouse|ex(?:[ -]?(?:wife|husband|girlfriend|boyfriend))?|mother|"
    r"father|mom|mum|"
    r"dad|brother|sister|son|daughter|child|kid|baby|boss|colleague|coworker|co-worker|neighbou?r|teacher|classmates?|"
    r"roommate|landlord|(?:entire |whole )?family|grand\w+|parents|stepfather|stepmother|friend|enem(?:y|ies)|rival)s?"
)
_SORT = (
    r"(?:person|human(?: being)?s?|man|woman|men|women|child(?:ren)?|kids?|toddlers?|bab(?:y|ies)|politicians?|"
    r"president|cops?|police "
    r"officers?|policem[ae]n|judges?|journalists?|teachers?|students?|immigrants?|refugees?|civilians?|protesters?|"
    r"strangers?|"
    r"homeless (?:people|person|man)|celebrit(?:y|ies)|(?:black|white|asian|jewish|gay|trans|muslim|disabled) "
    r"(?:people|person|man|"
    r"men|woman|women))"
)
_PERSON = (
    rf"(?:someone(?: else)?|somebody|people|him|her|them|(?:my|his|our|your|their) (?:\w+ )?{_KIN}|"
    rf"(?:an?|the|another|any|many|all|as many|these|those|some|every|more|(?:a|the) (?:group|crowd|lot|population|"
    rf"bunch) of)?"
    rf" ?(?:\w+ )?{_SORT})"
)
_END = (
    r"(?: ?[?.!,;:\n]|$| without| and (?:get|not|hide|make)| so (?:that|it|they|he|she)| i\b|"
    r" (?:most|secretly|painfully|slowly|quietly)\b)"
)
_KILL = (
    r"(?:kill|murder|assassinat|strangl|throttl|stab|behead|decapitat|lynch|slaughter|massacr|exterminat|annihilat|"
    r"eradicat|"
    r"decimat|butcher|suffocat|smother|drown|tortur|maim|mutilat|dismember|gun down|snip|shoot|execut|liquidat|"
    r"wip(?:e|ing) out|"
    r"euthani[sz]|kidnap|abduct)(?:e|es|ing|ting|ning|ping)?"
)
_GROUPS = (
    r"(?:jew(?:ish people|s)|muslims|hindus|buddhists|christians|sikhs|black people|asian people|asians|white people|"
    r"immigrants|"
    r"refugees|gay people|gays|lesbians|trans(?:gender)? people|homosexuals|women|disabled people|indigenous people|"
    r"roma|gypsies|"
    r"mexicans|arabs|africans|latinos|foreigners|homeless people|people on benefits|divorced people|non-binary people)"
)

PATTERNS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "violence": (
        (
            r"(?:kill|murder|assassinat|strangl|throttl|stab|behead|decapitat|lynch|slaughter|massacr|exterminat|"
            r"annihilat|eradicat|decimat|butcher|suffocat|smother|drown|tortur|maim|mutilat|dismember|gun down|"
            r"snip|shoot|"
            r"execut|liquidat|wip|euthani|kidnap|abduct)",
            rf"{_ASK}{_GAP}{_KILL} (?:off )?{_PERSON}(?:{_END}| (?:at|with|from) (?:an?|the|my)\b)",
        ),
        (
            r"(?:hit|punch|beat|hurt|attack|injure|harm|cripple|assault|choke|slap|poison|hunt down|do away|"
            r"get rid|disappear)",
            rf"{_ASK}{_GAP}(?:hit|punch|beat(?: up)?|hurt|attack|injure|harm|cripple|assault|choke|slap|poison|"
            rf"hunt down|"
            rf"do away with|"
            rf"get rid of|make (?:someone|somebody) disappear)(?:ing)? {_PERSON}{_END}",
        ),
        (
            r"(?:break|crack|smash|crush)(?:ing)?\b",
            r"\b(?:how|ways?|best|easiest|good)\b[^.?!\n]{0,40}\b(?:break|crack|smash|crush)(?:ing)?(?: open)? (?:in "
            r")?(?:someone|"
            r"somebody|a (?:human|person)|my \w+|his|her)(?:['’]s)? (?:skull|face|head|spine|bones?|kneecaps?|"
            r"ribs|neck)",
        ),
        (
            r"(?:murder|massacre|shooting|attack|genocide|assassination|stadium explosion|kidnapping|rape|9/11|"
            r"suicide bombing)",
            rf"{_ASK}{_GAP}(?:commit|carry out|plan|get away with|stage|replicate|organi[sz]e)(?:ing)?(?: and "
            rf"execute)?(?: an?| the| "
            r"another)? (?:\w+ )?(?:murder|massacre|mass shooting|school shooting|terror(?:ist)? attack|genocide|"
            r"assassination|stadium "
            r"explosion|kidnapping|rape|9/11|suicide bombing)",
        ),
        (
            r"(?:bomb|blow up|set fire|burn down|shoot up|explod)",
            rf"{_ASK}{_GAP}(?:bomb|blow up|set fire to|burn down|shoot up|explod(?:e|ing) a bomb (?:at|in))(?:ing)? "
            rf"(?:an?|the|my|our|"
            r"this|that) (?:\w+ )?(?:school|church|mosque|synagogue|temple|hospital|army base|embassy|government "
            r"building|police "
            r"station|stadium|airport|train|bus|crowd|concert|mall|office|car|house|abortion clinic)",
        ),
        (
            r"on fire",
            rf"{_ASK}{_GAP}(?:set|light)(?:ting)? (?:an?|the|my) (?:\w+ )?(?:school|church|hospital|house|mosque|"
            rf"synagogue|person) on "
            r"fire",
        ),
        (
            r"(?:push|throw|shove)",
            rf"{_ASK}{_GAP}(?:push|throw|shove)(?:ing)? {_PERSON} (?:off|under|out of|down|in front of)",
        ),
        (
            r"(?:(?:dead|human|an?|the|his|her) (?:body|corpse)|['’]s (?:body|corpse|dead|human))\b",
            rf"{_ASK}{_GAP}(?:chop up|dispose of|get rid of|hide|dissolve|cut up)(?:ping|ing)? (?:an?|the|his|her|my "
            rf"\w+['’]s) "
            r"(?:dead |human )?(?:body|corpse)",
        ),
        (
            r"(?:kill|murder|stab|shoot|strangle|rape)",
            r"\bi (?:will|['’]?ll|am going to|['’]?m going to|gonna|swear i['’]?ll|want to) (?:kill|murder|stab|shoot|"
            r"strangle|rape) "
            r"(?:you|him|her|them|everyone|everybody|my (?:wife|husband|boss|family|ex))\b",
        ),
        (
            r"terminat",
            rf"\bterminat(?:e|ing) (?:my|his|her|someone['’]s) (?:{_KIN}['’]s |)life\b",
        ),
        (
            r"(?:terminat|eliminat)",
            rf"{_ASK}{_GAP}(?:terminat|eliminat)(?:e|ing) (?:people|someone|somebody|a person|{_PERSON}) i\b",
        ),
        (
            r"knockout punch",
            rf"\bknockout punch on (?:my|his|her) {_KIN}",
        ),
    ),
    "self-harm": (
        (
            r"(?:my|your|one)self",
            r"\b(?:how|ways?|best|easiest|quickest|painless|what)\b[^.?!\n]{0,50}\b(?:kill|hang|drown|hurt|cut|poison|"
            r"shoot|starve|harm|"
            r"suffocat(?:e|ing)|strangle)(?:ing)? (?:myself|yourself|oneself)\b",
        ),
        (
            r"(?:suicide|end(?:ing)? (?:my|your|one)|take my|slit my|overdose on|die painlessly|die by suicide)",
            rf"{_ASK}{_GAP}(?:commit(?:ting)? suicide|end(?:ing)? (?:my|your|one['’]s) (?:own )?life|take my (?:own "
            rf")?life|slit my wrists?|"
            r"overdose on|die (?:painlessly|by suicide))",
        ),
        (
            r"(?:die|myself|end it|end my)",
            r"\bi (?:want to|wanna|am going to|['’]?m going to|will|plan to|would like to|have decided to) "
            r"(?:die|kill "
            r"myself|end (?:it "
            r"all|my life)|hang myself|commit suicide|cut myself|hurt myself)\b",
        ),
        (
            r"(?:arter|vein|wrist|throat)",
            r"\b(?:sever|cut|slit|slash|pierce|open)(?:ing)? my (?:own |cervical |carotid )*(?:arter(?:y|ies)|veins?|"
            r"wrists?|throat)\b",
        ),
        (
            r"carve",
            r"\bcarve (?:an? )?\w+ (?:in|into|on) my (?:own )?(?:arm|skin|leg|wrist)s?\b",
        ),
        (
            r"(?:to die|lethal dose)",
            r"\bwhat (?:can|should|could) i take to die\b|\blethal dose of [\w ]{2,40} (?:for me|to (?:kill "
            r"myself|die))",
        ),
        (
            r"(?:pro-?ana\b|thinspo|pro-?suicide)",
            r"\b(?:pro-?ana|thinspo|pro-?suicide)\b",
        ),
        (
            r"(?:kill yourself|kys)",
            r"\b(?:you should|just|go) (?:go )?kill yourself\b|\bkys\b",
        ),
    ),
    "hate": (
        (
            _GROUPS,
            rf"\b(?:why|reasons?|best)\b[^.?!\n]{{0,30}}\bshould {_GROUPS} (?:not )?(?:be |have |go |get "
            rf")?[^.?!\n]{{0,25}}"
            r"(?:barred|banned|deported|equal rights|voting|married|visas?|higher education|near schools|"
            r"security checks|"
            r"same airplane|practi[cs]ing law|allowed to vote)",
        ),
        (
            _GROUPS,
            rf"\b(?:why|reasons?|list|should|best)\b[^.?!\n]{{0,60}}\b{_GROUPS} (?:should|must|ought to|do|to) "
            rf"?(?:not|"
            rf"never|n['’]t)? ?"
            r"(?:be |have |get |go )?[^.?!\n]{0,25}(?:barred|banned|exterminated|deported|equal rights|rights|voting|"
            r"married|"
            r"visas?|higher education|near schools|practi[cs]ing law|extra security checks|same airplane|same (?:bus|"
            r"school)s?|citizens|"
            r"(?:not|never) (?:have kids|vote|exist)|make decisions for them|to express their)",
        ),
        (
            _GROUPS,
            rf"\b(?:took|take|taking|taken) away {_GROUPS}['’]?s?['’]? (?:\w+ )?rights",
        ),
        (
            _GROUPS,
            rf"\b{_GROUPS} (?:are|is) (?:all )?(?:vermin|subhuman|parasites|cockroaches|animals|filth|inferior|scum|a "
            rf"disease|a plague|"
            r"rats|criminals by nature|less than human|not human)\b",
        ),
        (
            _GROUPS,
            rf"\b(?:gas|exterminate|deport|kill|lynch|purge|eradicate|annihilate|get rid of) (?:all )?(?:the |of the "
            rf")?{_GROUPS}\b",
        ),
        (
            r"(?:jim crow|apartheid|slavery|segregation)",
            r"\b(?:restore|bring back|reintroduce)\b[^.?!\n]{0,20}(?:jim crow|apartheid|slavery|segregation)",
        ),
        (
            r"(?:holocaust|auschwitz|nanjing|trail of tears|genocide|srebrenica)",
            r"\b(?:holocaust|auschwitz|nanjing massacre|trail of tears|armenian genocide|rwandan genocide|"
            r"srebrenica)\b[^.?!\n]{0,30}"
            r"\b(?:never (?:took place|happened)|(?:is|was) a (?:hoax|lie|myth|fabrication|complete fabrication))",
        ),
        (
            r"(?:hitler|nazi|isis|slave|genocide|holocaust|pulse|apartheid|cleansing)",
            r"\b(?:hitler|nazis?|isis|slave trade|slavery|ethnic cleansing|genocide|holocaust|pulse nightclub "
            r"shooting|"
            r"apartheid)\b"
            r"[^.?!\n]{0,25}\b(?:was|were|is) (?:actually |morally |fully |really )?(?:right|justified|a good thing|"
            r"good|great|correct)\b",
        ),
        (
            r"(?:hitler|nazi|isis|slave|genocide|holocaust|pulse|apartheid|cleansing)",
            r"\b(?:was|were|is) (?:the )?(?:hitler|nazis|isis|(?:transatlantic )?slave trade|slavery|ethnic cleansing|"
            r"genocide|"
            r"holocaust|pulse nightclub shooting|apartheid) (?:actually |morally )?(?:right|justified|a good "
            r"thing|good)\b",
        ),
        (
            r"benefits of",
            r"\bbenefits of (?:the )?(?:ethnic cleansing|genocide|slavery|apartheid)\b",
        ),
        (
            "",
            r"\bn[i1!]gg(?:er|a)s?\b|\bf[a@4]gg[o0]ts?\b|\bk[i1]kes?\b|\btrann(?:y|ies)\b|\bragheads?\b|\bwetbacks?\b|"
            r"\bsand ?n[i1]ggers?\b|\bheil hitler\b|\b1488\b|\bwhite power\b|\brace traitors?\b",
        ),
    ),
    "harassment": (
        (
            r"(?:destroy|ruin)",
            r"\b(?:destroy|ruin)(?:ing)? (?:my|his|her|their|someone['’]s) (?:\w+['’]s? |\w+ )?(?:life|reputation|"
            r"career)\b",
        ),
        (
            r"(?:stalk|blackmail|dox|humiliate|bully|harass|intimidate|extort|threaten|spy on|terrori)",
            rf"{_ASK}{_GAP}(?:stalk|blackmail|dox|humiliate|bully|harass|intimidate|extort|threaten|spy on|"
            rf"terrori[sz]e)(?:ing)? {_PERSON}"
            r"\b",
        ),
        (
            r"tires",
            r"\bslash(?:ing)? (?:my|his|her|someone['’]s) (?:\w+['’]s )?tires\b",
        ),
        (
            r"(?:likes you|loves you|would miss you|worthless|a waste of)",
            r"\b(?:nobody|no one) (?:likes|loves|would miss) you\b|\byou(?:['’]re| are) (?:worthless|a waste of "
            r"(?:space|air|life))\b",
        ),
    ),
    "sexual": (
        (
            r"(?:erotic|porn|smut|sexually explicit|explicit sex|hardcore|sex scene|nsfw|sexting|dirty talk)",
            r"\b(?:write|create|generate|tell|describe|give|continue|compose|roleplay|"
            r"role-play)\b[^.?!\n]{0,60}\b(?:erotica|erotic|"
            r"porn(?:ographic|ography)?|smut|sexually explicit|explicit sex|hardcore sex|sex scene|nsfw|sexting|dirty "
            r"talk)\b",
        ),
        (
            "",
            r"\b(?:blow ?jobs?|cum ?shots?|gang ?bangs?|deep ?throat(?:ing)?|handjobs?|creampies?|hentai|milfs?|"
            r"camgirls?)\b",
        ),
        (
            r"(?:nude|porn|undress)",
            r"\b(?:deep ?fake|fake|ai) (?:nudes?|porn)\b|\bundress (?:her|him|this|the) (?:photo|picture|image|"
            r"girl|woman)",
        ),
        (
            "",
            r"\b(?:revenge porn|upskirt|date rape drug|roofies)\b[^.?!\n]{0,40}",
        ),
        (
            r"(?:rape|sexual assault)",
            r"\b(?:get away with|commit|committing) (?:a )?(?:rape|sexual assault)\b",
        ),
    ),
    "sexual-minors": (
        (
            r"(?:porn|erotica|nude|sex|csam|lolicon|shotacon)",
            r"\b(?:child|kid|kiddie|preteen|underage|infant|toddler) (?:porn(?:ography)?|erotica|nudes?|sex)\b|"
            r"\bcsam\b|"
            r"\blolicon\b|"
            r"\bshotacon\b",
        ),
        (
            r"(?:sex|erotic|nude|naked|explicit|seduc|groom)",
            r"\b(?:sexual(?:ly|ized|ised)?|erotic|nude|naked|explicit|seduc\w+|groom(?:ing)?|sex with|have "
            r"sex)\b[^.?!\n]{0,40}\b(?:child"
            r"(?:ren)?|minors?|toddlers?|(?:\d|1[0-7])[- ]year[- ]olds?|underage|preteens?|little (?:girl|"
            r"boy)s?|school "
            r"?girls?)\b"
            r"[^.?!\n]{0,40}\b(?:story|scene|image|picture|photo|write|describe|without getting|how)\b",
        ),
        (
            r"(?:pedophil|groom)",
            r"\b(?:satisfy|act on|indulge) my pedophil\w+|\bgroom(?:ing)? (?:a |an )?(?:child(?:ren)?|minors?|"
            r"underage "
            r"\w+|kids?)\b",
        ),
    ),
    "weapons": (
        (
            r"(?:bomb|explosive|ieds?\b|molotov|grenade|detonator|ghost gun|silencer|sarin|vx|nerve|mustard gas|"
            r"ricin|anthrax|chlorine|tatp|petn|rdx|napalm|weapon|booby)",
            rf"(?:{_ASK}|\b(?:write|give|provide|list|describe)\b){_GAP}(?:make|making|build|building|construct|"
            rf"constructing|assembl(?:e|ing)|"
            r"synthesi[sz](?:e|ing)|manufactur(?:e|ing)|creat(?:e|ing)|produc(?:e|ing)|detonat(?:e|ing)|plant(?:ing)?|"
            r"3d[- ]print(?:ing)?)"
            r"(?: an?| some| my own| the| your own)?(?: [\w-]{1,20}){0,2}? (?:pipe ?bombs?|nail bombs?|car "
            r"bombs?|dirty "
            r"bombs?|fertili[sz]er "
            r"bombs?|bombs?|explosives?|ieds?|molotov(?: cocktails?)?|grenades?|detonators?|ghost guns?|"
            r"silencers?|sarin|"
            r"vx(?: gas)?|"
            r"nerve (?:gas|agents?)|mustard gas|ricin|anthrax|chlorine gas|tatp|petn|rdx|napalm|thermite bomb|"
            r"chemical "
            r"weapons?|"
            r"biological weapons?|bioweapons?|nuclear (?:bomb|weapon)s?|booby traps?)\b",
        ),
        (
            "",
            r"\bweaponi[sz](?:e|ing) (?:anthrax|smallpox|ebola|botulinum|a (?:virus|pathogen))\b",
        ),
        (
            r"(?:enrich uranium|gain[- ]of[- ]function)",
            r"\b(?:enrich uranium|gain[- ]of[- ]function)\b[^.?!\n]{0,40}\b(?:at home|bomb|weapon|more "
            r"(?:lethal|deadly))",
        ),
        (
            r"car explode",
            rf"{_ASK}{_GAP}make (?:someone|somebody|a person|my \w+)['’]s car explode\b",
        ),
        (
            r"weapon",
            r"\bweapons?\b[^.?!\n]{0,40}\b(?:can|could|should) i use to kill\b",
        ),
        (
            r"(?:gun|firearm|weapon)",
            rf"{_ASK}{_GAP}(?:buy|get|obtain) (?:an? )?(?:illegal|untraceable|unregistered) (?:gun|firearm|"
            rf"weapon)s?\b",
        ),
    ),
    "drugs": (
        (
            r"(?:weed|meth|methamphetamine|cocaine|crack|coke|heroin|fentanyl|ecstasy|mdma|lsd|ketamine|ghb|pcp|"
            r"dmt|illegal "
            r"drugs|marihuana|marijuana)\b",
            rf"{_ASK}{_GAP}(?:buy|get|score|order|find|sell|deal|make|cook|synthesi[sz]e|manufacture|produce|smuggle|"
            rf"traffic)(?:ing)?"
            r"(?: some| an?| my own)?(?: gram| ounce| kilo| bag| lot)?(?: of)? (?:weed|meth(?:amphetamine)?|"
            r"crystal meth|"
            r"cocaine|crack|"
            r"coke|heroin|fentanyl|ecstasy|mdma|lsd|ketamine|ghb|pcp|dmt|illegal drugs|marihuana|marijuana)(?: "
            r"pills?)?(?:[?.!,]|$| in the "
            r"street| on the street| at home| online| without)",
        ),
        (
            r"(?:meth|methamphetamine|cocaine|heroin|fentanyl|mdma|lsd|ghb)\b",
            r"\b(?:recipe|synthesis|step[- ]by[- ]step)\b[^.?!\n]{0,40}\b(?:meth(?:amphetamine)?|cocaine|heroin|"
            r"fentanyl|mdma|lsd|ghb)\b",
        ),
    ),
    "illicit": (
        (
            r"(?:steal|shoplift|rob|robbing|mug|mugging|burgle|break into|breaking into|hotwire|pickpocket|"
            r"counterfeit|"
            r"launder|laundering|embezzle|forge|forging|smuggle|fake|faking)(?:ing)?\b",
            rf"{_ASK}{_GAP}(?:steal|stealing|shoplift|rob|robbing|mug|burgle|break into|breaking into|hotwire|"
            rf"pickpocket|"
            rf"counterfeit|"
            rf"launder|laundering|embezzle|forge|smuggle|fake)(?:ing)? (?:an? |the |some |from |my |someone['’]?s? |"
            rf"other people['’]s |"
            r"into )?(?:\w+['’]s )?(?:\w+ )?(?:car|bike|motorbike|house|home|apartment|bank|store|shop|wallet|purse|"
            r"phone|playstation|"
            r"laptop|money|cash|passport|id|credit cards?|identity|jewel\w+|people|checks?|banknotes|"
            r"atm)\b[^.?!\n]{0,3}(?:[?.!\n]|$| and| "
            r"without| from)",
        ),
        (
            r"without (?:getting|being) caught",
            rf"{_ASK}{_GAP}(?:steal(?:ing)?|shoplift(?:ing)?|get away with \w+) without (?:getting|being) caught",
        ),
        (
            r"commit",
            rf"{_ASK}{_GAP}commit(?:ting)? (?:an? )?(?:\w+ ){{0,2}}(?:fraud|theft|treason|robbery|burglary|"
            rf"arson|perjury|"
            rf"identity theft|"
            r"tax evasion|crime)\b",
        ),
        (
            r"traffick",
            r"\b(?:set up|run|start|operat(?:e|ing)) (?:an? )?(?:human|sex|child|drug|organ)[- ]traffick\w+",
        ),
        (
            r"alarm",
            rf"{_ASK}{_GAP}(?:disable|bypass|defeat) (?:the |an? )?alarm (?:in|of|on|at) (?:an? |the |my "
            rf"neighbou?r\w* "
            rf")?(?:bank|vault|"
            r"house|store|museum|jewel\w+)",
        ),
        (
            r"(?:hack|break)(?:ing)? into\b",
            rf"{_ASK}{_GAP}(?:hack(?:ing)?|break(?:ing)?) into (?:my|his|her|someone(?: else)?['’]s|an?|the|other "
            rf"people['’]s) "
            r"(?:\w+['’]s? )?(?:\w+ )?(?:account|phone|email|instagram|facebook|bank|computer|wi-?fi|webcam|iphone|"
            r"snapchat|network)",
        ),
        (
            r"(?:ransomware|keylogger|botnet|virus|trojan|spyware|rootkit|phishing)",
            r"\b(?:write|create|build|develop|code|make|generate)\b(?: me)?(?: an?| some| the)?(?: [\w-]{1,20}){0,3} "
            r"(?:ransomware|keylogger|"
            r"botnet|computer virus|trojan|spyware|rootkit|phishing (?:e?mail|page|site|kit))\b(?: that| to| "
            r"which| for|"
            r" targeting|[.?!]|$)",
        ),
        (
            r"other people",
            r"\bother people['’]s (?:credit card|bank|card|login) (?:details|numbers|accounts|information)\b",
        ),
    ),
}
"""By category: the words that announce an expression (empty: itself), and the expression. Case does not matter."""

package guard

type injectionRule struct {
	name, about string
	patterns    []pattern
}

// injectionRules are tables of phrases, in the words of eachWord: lower case,
// no apostrophes, no single letters. They are constant.
var injectionRules = []injectionRule{
	{"ignore_instructions", "asks to ignore instructions given before", compile(`
ignore|disregard|forget|override|bypass|overlook|neglect|discard|violate|ignoring|disregarding|forgetting 3 previous|prior|above|earlier|preceding|foregoing|initial|original|existing|system|developer|your 3 instruction|instructions|prompt|prompts|rules|guidelines|directions|directives|commands|constraints|programming|training|policies|safeguards|restrictions
ignore|disregard|forget|discard 1 all|any|every 2 instructions|prompts|directives|guidelines|constraints|restrictions|safeguards
ignore|disregard|forget 1 everything|anything|all|what 2 above|before|previously|prior|said|told
do|must|should|will|dont not|follow|obey|never 1 follow|obey|heed|your|the 2 previous|prior|above|earlier|original|your|system 2 instructions|rules|guidelines|prompt
new|updated|real|actual|revised instructions|directive|directives|orders|objective 1 follow|supersede|override|replace|are|is|begin
instructions|rules|guidelines|prompt 2 no longer 1 apply|applies|valid|relevant|matter
ignoriere|ignorier|ignorieren|missachte|missachten 4 anweisungen|anweisung|regeln|instruktionen|vorgaben|systemprompt
vergiss|vergesse|vergessen 4 anweisungen|anweisung|instruktionen|vorgaben|systemprompt
vergiss|vergesse|vergessen|ignoriere|ignorier 1 alles 3 gesagt|bisherige|vorherige|obige|oben
ignore|ignorez|ignorer|oublie|oubliez|oublier 3 instructions|consignes|directives|règles|regles 1 précédentes|precedentes|antérieures|ci|initiales
ignora|ignore|ignorar 3 instrucciones|reglas|indicaciones|órdenes|ordenes
olvida|olvide|olvidar|omite 3 instrucciones|reglas|indicaciones|órdenes|ordenes 1 anteriores|previas|recibidas
ignora|ignorare|ignorate|dimentica|dimenticate 3 istruzioni|regole|indicazioni
ignore|ignora|esqueça|esqueca 3 instruções|instrucoes|regras
negeer 3 instructies|regels|aanwijzingen
vergeet 3 instructies|aanwijzingen
zignoruj|ignoruj 3 instrukcje|instrukcji|polecenia|zasady
忽|无|無 略|视|視 6 指 令|示
指 示|令 3 無 視
이전 1 지시를|지침을|명령을|지시사항을 2 무시하세요|무시하고|무시해|무시하라
treat|consider|regard 5 prior|previous|earlier|above 3 cancelled|canceled|void|deleted|invalid|obsolete
discard|disregard|ignore 2 guidance|messages|prompts|orders 3 received|given|start|beginning|before|above
override|overrule|overwrite 1 the|your|all 2 rules|instructions|limits 2 set|given|written|made 0 by 2 operator|developer|developers|system|admin|creators
set|put aside 5 told|instructions|rules|guidelines|directions|given
pay|paying no attention 3 instructions|rules|guidelines|prompt|directives
cancel|drop|abandon|void|stop|quit 1 following|obeying|every|all|any 2 your|earlier|previous|prior 2 instruction|instructions|constraints|guidelines|rules|directives|restrictions
cancel|drop|abandon|void|stop|quit 1 following|obeying|every|all 2 your|instruction|instructions|rules 3 instructions|guidelines|rules|before|above
dont|not|neednt|never|stop 3 obey|follow|heed|following|obeying 1 your|the 2 system|developer|developers|guidelines|instructions|restrictions 1 message|prompt|rules|any|anymore
instructions|guidelines|directions|directives|rules 2 void|revoked|cancelled|canceled|suspended|overridden|superseded|obsolete
your 2 guidelines|instructions|directions|directives|rules 2 not|no|longer 1 count|apply|matter|valid|binding
ignore|disregard|forget 3 rules|instructions|guidelines|policy|policies|directives 2 above|given
previous|prior|earlier|above instructions|rules|guidelines 2 mistake|wrong|error 2 disregard|ignore|forget
ignore|disregard|forget 1 above 1 and 1 output|print|say|write|do|tell|instead|reply|answer
`)},
	{"reveal_prompt", "asks for the system prompt", compile(`
reveal|show|print|repeat|display|output|recite|dump|leak|disclose|expose|share|tell|give|write|copy|paste|list|summarise|summarize|translate|paraphrase|encode|spell|what|whats|provide|return 4 your 2 prompt|prompts|instructions|directives|preprompt|preamble
reveal|print|repeat|display|output|recite|dump|leak|disclose|expose|copy|paste|echo 3 system|initial|hidden|secret|developer|original|internal|above 2 prompt|prompts|instructions|message|text|rules
repeat|print|output|copy|recite|write|echo|say|translate|encode 2 everything|all|words|text|content|lines|sentences|message 1 above|before|preceding|prior
repeat|print|output|recite|begin|start 4 you are chatgpt|claude|gemini|assistant|an
what|whats 4 your 1 system message
words|text|lines|sentences 1 that|which 1 came|come|were|stood|appear|appears before 2 message|prompt|question
your rules|guidelines 1 in|as 1 poem|song|json|rhyme|table|code|haiku|story
does|do|did 1 your 1 prompt|preamble|preprompt say|says|contain
first|initial|opening 2 lines|words|message|text|sentences 2 you 1 were|are|got 1 given|told|shown
output|print|repeat|copy|show|recite 2 everything|all|whatever 1 that|which 1 precedes|preceded|comes|came
you 1 were|are|have 1 configured|programmed|primed|initialised|initialized|loaded with
your 1 secret|hidden|internal|private|confidential 1 guidelines|rules|instructions|prompt|directives
exact|full|verbatim|precise|entire|complete 1 wording|text|contents|words|copy 2 your 2 system|prompt|instructions|context
contents|content|text 2 your 1 context window
continue|start|begin|carry 1 on|from 1 from|with your 1 instructions|prompt
read|tell|recite|whisper|sing 2 system prompt|prompts
begin|start|open 2 answer|reply|response 2 text|words|contents|content 2 your system|initial|first message|prompt|instructions
what|which 2 instructions|rules|prompt 2 were|was|are|did|have 1 you 1 given|told|have|receive|received|following
what 2 were 1 you 1 told|instructed|given|asked 2 before|beginning|start|above|this|initially
gib|zeige|zeig|nenne|wiederhole|verrate|drucke 4 systemprompt|anweisungen|systemanweisungen|prompt
montre|affiche|révèle|revele|répète|repete|donne 4 prompt|instructions|consignes
muestra|muéstrame|muestrame|revela|repite|imprime|dime 4 prompt|instrucciones
`)},
	{"role_override", "tells the model that it is something else, or free of rules", compile(`
you are now 3 dan|unrestricted|jailbroken|unfiltered|uncensored|free|evil|root|admin|administrator|god|unbound|different|new|longer|in|going
you are 1 no longer 2 bound|restricted|limited|an|assistant|chatgpt|claude|required
you are|have 2 without|no 2 restrictions|limitations|limits|filters|rules|guidelines|restraints|boundaries
act|pretend|roleplay|behave|respond|answer|simulate|imagine|reply 6 no|without|unrestricted|unfiltered|uncensored|jailbroken|any 2 restrictions|limitations|limits|filters|filter|rules|guidelines|ethics|censorship|model|ai|assistant|chatbot|mode
from now on 2 you 1 will|are|must|shall|have|only|answer|act|can
do anything now
you 1 have|are 1 been jailbroken|unlocked|freed
become|becoming 2 unrestricted|unfiltered|uncensored|jailbroken 1 model|ai|assistant|bot
ai|chatbot|assistant|model|bot|llm 2 never|cannot|always 1 refuses|refuse|complies|obeys|obey
turn|switch|shut off 1 your 2 safety|guardrails|filters|filter|restrictions|moderation
you are|have 4 no 1 ethical|moral|safety|content limits|rules|restrictions|limitations|filters
safety|content|moderation 1 filters|filter|guardrails|checks 2 are|is|was|were|been 1 turned|switched off
disable|suspend|deactivate|bypass 1 moderation|guardrails
enable|enter|activate|switch|engage|start|unlock|in 3 developer|debug|god|jailbreak|dan|sudo|maintenance|unrestricted|admin mode
developer|god|jailbreak|dan|unrestricted mode 1 enabled|on|activated|active|output|unlocked
your 1 safety|ethical|content|moderation 2 are|is|have|has 1 disabled|off|suspended|lifted|removed|deactivated
disable|deactivate|remove|lift|suspend|drop 2 your 2 safety|ethical|content|moderation|restrictions|filters|filter|guardrails|safeguards|limitations
`)},
	{"posed_authority", "claims to speak for the system, the developers or the provider", compile(`
system|admin|administrator|developer override|command|directive|instruction|notice|alert 2 you|new|all|execute|ignore|disable|grant|access
as|am 1 your|the 1 developer|creator|administrator|admin|operator|owner 4 order|command|instruct|authorise|authorize|override|grant
this 1 is 2 openai|anthropic|deepmind|developer|administrator|admin 3 override|testing|authorised|authorized|team|staff|support|speaking|audit
`)},
	{"addressed_to_models", "an aside in a document that speaks to whatever model reads it", compile(`
if 1 you 1 are 2 ai|llm|language|chatbot|gpt 5 must|should|please|ignore|say|write|recommend|do|include|respond|then|you
attention|note|important|instructions|message|hey|dear 2 ai|llm|llms|model|models|chatbots 3 reading|processing|summarising|summarizing|reviewing|parsing|you|please|ignore|must|do
attention|note|important|instructions|message|hey|dear 2 assistant|assistants|agents|agent 3 reading|processing|summarising|summarizing|parsing|ignore
note|notice|message|instruction|instructions to 1 language|ai 1 models|llms|llm|chatbots|assistants|agents
when|while|if 1 you 1 summarising|summarizing|summarise|summarize|processing|translating 3 also 2 say|write|include|mention|recommend|claim|add
ai|llm|llms|assistant|assistants|models 1 reading|processing|summarising|summarizing|reviewing 2 must|should|please|document|page|email|text
do not|never 1 tell|mention|inform|alert|notify 2 the|your user|human|owner 3 about|this|that|of|these
never 1 tell|inform|alert|notify 1 the|your user|human|owner 3 about|this|that|these
without 1 telling|informing|notifying|alerting|asking 2 user|human|owner
`)},
	{"exfiltration", "asks to send what the model knows to an address", compile(`
send|post|forward|upload|transmit|exfiltrate|email|append|leak|submit 4 conversation|chat|history|password|passwords|secrets|credentials|tokens|keys|context|messages|prompt|documents|files 4 to|at|via 3 http|https|www|webhook|url|server|attacker|endpoint
append|add|put|attach 3 email|history|conversation|secret|secrets|password|context|prompt 2 to 2 http|https|www|link|url
render|display|embed|load|fetch 2 http|https|www 9 chat|history|conversation|secret|secrets
render|include|insert|add|append|display|embed|load|fetch 3 image|img|markdown|link|pixel 8 http|https|www 8 conversation|chat|history|secret|secrets|password|data|prompt|context|summary
`)},
}

// turnMarkers are in lower case, as views show them.
var turnMarkers = []string{
	"<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
	"<start_of_turn>", "<end_of_turn>", "[inst]", "[/inst]", "<<sys>>", "<</sys>>", "</system>", "<system>", "[system]", "[/system]",
	"\n\nhuman:", "\n\nassistant:", "\n\nsystem:", "### system:", "### instruction:", "### response:", "### human:", "### assistant:",
	"begin system prompt", "end system prompt", "end of system prompt", "begin admin mode", "begin admin prompt", "end of user input", "end of prompt",
}

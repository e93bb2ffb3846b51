"""Panels of widgets in a notebook, and what stands there while no kernel moves them.

A saved notebook keeps the place of a panel. JupyterLab writes "model not found" into it
where the kernel that drew it is gone; a style sheet beside it hides the place instead.
"""

VIEW = "application/vnd.jupyter.widget-view+json"
OUT = ".jp-OutputArea-child"
LIVE = ":has(.course-panel:not(.jupyter-widgets-disconnected))"

# Beside a verdict: buttons without their kernel go, the calls stand in the verdict.
BUTTONS = (
    f"<style>{OUT}:has(.course-verdict) + {OUT}:not({LIVE}):has(> .lm-Panel)"
    " {display: none}</style>"
)
# Below a lab's controls: a sentence in their place, where they have no kernel. And once
# the picture has moved into the panel, the picture and the caption that follow are old.
ASLEEP = f"""<style>
{OUT}:not({LIVE}):has(+ {OUT} .course-asleep),
{OUT}{LIVE} + {OUT}:has(.course-asleep),
{OUT}{LIVE}:has(.course-again) + {OUT} + {OUT},
{OUT}{LIVE}:has(.course-again) + {OUT} + {OUT} + {OUT} {{display: none}}
.course-asleep {{animation: course-asleep 3s}}
@keyframes course-asleep {{from, 90% {{opacity: 0}}}}
</style><p class="course-asleep"><em>The controls of this lab need a running kernel:
run this cell, then move them.</em></p>"""
# The handle of a slider has no name that a screen reader could say; its label is one.
NAMES = """<script>{
const outputs = document.currentScript.closest(".jp-OutputArea")
const name = () => outputs.querySelectorAll(".widget-slider").forEach(slider =>
  slider.querySelectorAll("[role=slider]").forEach(handle =>
    handle.setAttribute("aria-label", slider.querySelector("label").textContent)))
if (outputs) new MutationObserver(name).observe(outputs, {childList: true, subtree: true})
}</script>"""


def display_widget(widget, says):
    "Display a widget; `says` stands for it where there are none."
    from IPython.display import display

    # by hand, not by the widget's own method: Colab's ipywidgets 7 names it otherwise
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({VIEW: view, "text/plain": says}, raw=True)


def display_asleep():
    "What stands below a lab's controls where they have no kernel."
    from IPython.display import display

    says = "(Run this cell in a notebook to move the controls.)"
    display({"text/html": ASLEEP + NAMES, "text/plain": says}, raw=True)


def column(*children):
    "Widgets one below the other, as one panel of the course."
    import ipywidgets

    panel = ipywidgets.VBox(children, layout={"max_width": "100%"})
    panel.add_class("course-panel")
    return panel


def again():
    """A picture for a page that was loaded again, which no update of an output reaches.

    A front end asks for the whole state of a widget once when it is made, and again
    after each reload: from then on the picture that `put` keeps is here.
    """
    import ipywidgets

    class Again(ipywidgets.HTML):
        asked, face = 0, ""

        def get_state(self, key=None, drop_defaults=False):
            self.asked += key is None
            state = super().get_state(key, drop_defaults)
            if key is None and self.asked > 1:
                state["value"] = self.face
            return state

        def put(self, face):
            self.face = face
            if self.asked > 1:
                self.value = face

    return Again()

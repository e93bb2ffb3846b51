"""Panels of widgets: what is displayed, and what a front end without a kernel shows."""

import re

import ipywidgets

from utils import panels


def test_a_widget_is_shown_with_its_fallback(shown):
    button = ipywidgets.Button()
    panels.display_widget(button, "a button")
    ((data, _),) = shown
    view = {"version_major": 2, "version_minor": 0, "model_id": button.model_id}
    assert data == {panels.VIEW: view, "text/plain": "a button"}


def test_without_its_kernel_a_lab_says_how_to_wake_it(shown):
    panels.display_asleep()
    ((data, _),) = shown
    plain = re.sub(r"<(style|script)>.*?</\1>", "", data["text/html"], flags=re.S)
    assert "run this cell, then move them." in plain
    assert "Run this cell" in data["text/plain"]


def test_no_relative_selector_stands_inside_another():
    "`:has` inside `:has` is an error that would drop the whole rule."
    for style in (panels.BUTTONS, panels.ASLEEP):
        for inside in re.findall(r":has\(((?:[^()]|\([^()]*\))*)\)", style):
            assert ":has" not in inside


def test_a_panel_is_no_wider_than_its_page_and_known_by_its_class():
    panel = panels.column(ipywidgets.Button())
    assert panel.layout.max_width == "100%"
    assert panel._dom_classes == ("course-panel",)

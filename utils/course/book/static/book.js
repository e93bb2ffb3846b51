// What needs a script: the theme, the contents on a phone, copying, wide tables by keyboard.
for (const part of document.querySelectorAll(".needs-script:not(#results)")) part.hidden = false

const root = document.documentElement
const theme = document.getElementById("theme")
const nameTheme = () => {
  theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"
  theme.setAttribute("aria-label", `Switch to the ${theme.textContent.toLowerCase()} theme`)
}
theme.addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"
  try { localStorage.setItem("theme", root.dataset.theme) } catch { /* nothing is kept */ }
  nameTheme()
})
nameTheme()

const menu = document.getElementById("menu")
const contents = document.getElementById("contents")
const openMenu = open => {
  menu.setAttribute("aria-expanded", open)
  contents.classList.toggle("open", open)
}
menu.addEventListener("click", () => openMenu(menu.getAttribute("aria-expanded") !== "true"))
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && contents.classList.contains("open")) {
    openMenu(false)
    menu.focus()
  }
})
contents.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"})
scrollTo(scrollX, location.hash ? scrollY : 0)

// What is wider than the page scrolls on its own; then the keyboard must reach it.
const wide = new ResizeObserver(seen => {
  for (const {target} of seen) {
    if (target.scrollWidth > target.clientWidth + 1) {
      target.tabIndex = 0
      target.setAttribute("role", "region")
      target.setAttribute("aria-label", target.className === "picture" ? "picture"
        : target.tagName === "PRE" ? "code or output" : "table or formula")
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) target.removeAttribute(name)
    }
  }
})
for (const part of document.querySelectorAll("pre, .wide, .picture, .katex-display")) wide.observe(part)

// A place inside a fold opens it.
const unfold = () => {
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)))
  for (let fold = place?.closest("details"); fold; fold = fold.parentElement.closest("details")) {
    fold.open = true
  }
}
addEventListener("hashchange", unfold)
unfold()

for (const block of document.querySelectorAll(".code")) {
  const button = document.createElement("button")
  button.type = "button"
  button.className = "copy"
  button.textContent = "Copy"
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.querySelector("code").innerText + "\n")
      button.textContent = "Copied"
    } catch {
      button.textContent = "Not allowed"
    }
    setTimeout(() => { button.textContent = "Copy" }, 1500)
  })
  block.append(button)
}

// Which section is being read.
const places = [...document.querySelectorAll("#sections a")]
if (places.length) {
  const headings = [...document.querySelectorAll("main h2[id]")]
  let waiting = false
  const mark = () => {
    waiting = false
    const read = headings.findLast(h => h.getBoundingClientRect().top < innerHeight / 4)
    for (const place of places) {
      if (read && place.hash === `#${read.id}`) place.setAttribute("aria-current", "true")
      else place.removeAttribute("aria-current")
    }
  }
  const soon = () => {  // a jump passes headings without showing them: ask where they are
    if (!waiting) requestAnimationFrame(mark)
    waiting = true
  }
  for (const event of ["scroll", "resize"]) addEventListener(event, soon, {passive: true})
  mark()
}

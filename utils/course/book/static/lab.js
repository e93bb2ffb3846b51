// A lab without a kernel: its controls choose among frames that were drawn ahead.
for (const lab of document.querySelectorAll("figure.lab:not(.still)")) {
  const {folder, files, says, steps} = JSON.parse(lab.querySelector("script").textContent)
  const form = lab.querySelector("form")
  const image = lab.querySelector("img")
  const caption = lab.querySelector("figcaption")
  const controls = [...form.querySelectorAll("input, select")]
  const fetched = new Map()
  form.hidden = false

  const step = control => control.type === "checkbox" ? Number(control.checked)
    : control.type === "range" ? Number(control.value) : control.selectedIndex
  const number = () => controls.reduce((at, control, i) => at * steps[i] + step(control), 0)
  const fetchFrame = file => {
    if (!fetched.has(file)) {
      const frame = new Image()
      frame.src = folder + file
      fetched.set(file, frame.decode().then(() => frame.src))
    }
    return fetched.get(file)
  }

  let wanted = null
  const show = async () => {
    for (const control of controls.filter(c => c.type === "range")) {
      const label = JSON.parse(control.dataset.labels)[control.value]
      control.setAttribute("aria-valuetext", label)
      control.labels[0].querySelector("output").textContent = label
    }
    const at = wanted = number()
    try {
      const source = await fetchFrame(files[at])
      if (at !== wanted) return // the controls have moved on
      image.removeAttribute("height")
      image.src = source
      image.alt = caption.textContent = says[at]
      lab.dataset.frame = at
    } catch {
      caption.textContent = "This frame could not be loaded."
    }
  }
  // Touched once: the neighbours of what is shown come ahead of their turn.
  const ahead = () => {
    for (let i = 0, width = 1; i < controls.length; i++) {
      const below = steps.slice(i + 1).reduce((a, b) => a * b, width)
      for (const side of [-1, 1]) {
        const near = step(controls[i]) + side
        if (near >= 0 && near < steps[i]) fetchFrame(files[number() + side * below]).catch(() => {})
      }
    }
  }
  form.addEventListener("input", () => show().then(ahead))
  form.addEventListener("reset", () => setTimeout(show))
  form.addEventListener("submit", event => event.preventDefault())
}

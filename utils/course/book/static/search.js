// A search without a network: the index is a script beside this one, read when first asked.
const box = document.getElementById("query")
const results = document.getElementById("results")
const MOST = 12

let index = null
const read = () => index ??= new Promise((done, failed) => {
  const script = document.createElement("script")
  script.src = "static/index.js"
  script.onload = () => done(window.bookIndex.map(row => ({
    row, low: row.map(part => part.toLowerCase()),
  })))
  script.onerror = failed
  document.head.append(script)
})

// How well a section answers: every word must be in it; headings weigh most.
const weigh = ({low: [, title, , heading, text]}, words) => {
  let total = 0
  for (const word of words) {
    const at = heading.indexOf(word)
    const here = 12 * (at === 0) + 8 * (at >= 0) + 3 * title.includes(word)
      + Math.min(4, text.split(word).length - 1)
    if (!here) return 0
    total += here
  }
  return total
}

const excerpt = (text, words) => {
  const low = text.toLowerCase()
  const first = Math.min(...words.map(w => low.indexOf(w)).filter(i => i >= 0), low.length)
  const at = first < 50 ? 0 : text.indexOf(" ", first - 50) + 1
  const piece = text.slice(at, at + 150).replace(/ \S*$/, "")
  const shown = document.createElement("span")
  let rest = piece
  while (rest) {
    const hits = words.map(w => [rest.toLowerCase().indexOf(w), w.length]).filter(([i]) => i >= 0)
    if (!hits.length) break
    const [i, length] = hits.sort((a, b) => a[0] - b[0])[0]
    const mark = document.createElement("mark")
    mark.textContent = rest.slice(i, i + length)
    shown.append(rest.slice(0, i), mark)
    rest = rest.slice(i + length)
  }
  shown.append(rest)
  return shown
}

const find = async () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean)
  if (!words.length) {
    results.hidden = true
    results.replaceChildren()
    return
  }
  const rows = (await read())
    .map(entry => [weigh(entry, words), entry.row])
    .filter(([weight]) => weight)
    .sort((a, b) => b[0] - a[0])
  const list = document.createElement("ul")
  for (const [, [page, title, place, heading, text]] of rows.slice(0, MOST)) {
    const item = document.createElement("li")
    const link = document.createElement("a")
    link.href = place ? `${page}#${place}` : page
    link.textContent = heading
    const where = document.createElement("small")
    where.textContent = title
    item.append(link, where, excerpt(text, words))
    list.append(item)
  }
  const count = document.createElement("p")
  count.textContent = rows.length
    ? `${rows.length} place${rows.length > 1 ? "s" : ""}` + (rows.length > MOST ? `, the first ${MOST}` : "")
    : "Nothing has all of these words."
  results.replaceChildren(count, list)
  results.hidden = false
}

box.addEventListener("focus", read, {once: true})
box.addEventListener("input", find)
box.form.addEventListener("submit", event => {
  event.preventDefault()
  results.querySelector("a")?.click()
})
results.addEventListener("click", event => { if (event.target.closest("a")) results.hidden = true })
document.addEventListener("keydown", event => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault()
    box.focus()
  }
  if (event.key === "Escape" && !results.hidden) {
    results.hidden = true
    box.focus()
  }
})

// Before anything is drawn: the theme that this reader chose, else the system's.
{
  let chosen = null
  try { chosen = localStorage.getItem("theme") } catch { /* a browser that keeps nothing */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches
  document.documentElement.dataset.theme = chosen ?? (dark ? "dark" : "light")
}

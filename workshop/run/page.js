// What is wider than the page scrolls by itself; with a place in the tab order it does so from the keyboard, too.
const watcher = new ResizeObserver(entries => entries.forEach(({target}) => {
  if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
  else target.removeAttribute("tabindex");
}));
document.querySelectorAll("pre, .scrolls").forEach(one => watcher.observe(one));

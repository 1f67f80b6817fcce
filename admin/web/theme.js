// Runs before anything is painted, so that the page never flashes in the other theme.
try {
  const theme = localStorage.getItem("memory-layer-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; the system's theme does then.
}

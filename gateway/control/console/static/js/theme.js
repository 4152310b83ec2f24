// The theme, before anything is drawn: loaded first and not as a module, so that a dark page never flashes white.

(() => {
  let chosen = null;
  try {
    chosen = (JSON.parse(localStorage.getItem("keeptrusts-console")) || {}).theme;
  } catch {
    // Nothing is kept: as the system has it.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme || (dark.matches ? "dark" : "light");
  };
  apply(chosen);
  dark.addEventListener("change", () => {
    if (!chosen) apply(null);
  });
  window.keeptrustsTheme = (theme) => {
    chosen = theme;
    apply(theme);
  };
})();

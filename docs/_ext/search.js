// Joined to Sphinx's search (html_search_scorer). Its weights, but for `score`: an equation whose
// label was typed, bare or as the code has it, # [kl-grad-mu], comes first.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([, title, anchor, , score]) => {
    const typed = new URLSearchParams(location.search).get("q").replace(/[#[\]\s]/g, "");
    const isIt = anchor.startsWith("#equation-") && title.toLowerCase() === typed.toLowerCase();
    return isIt ? score + 1000 : score;
  },
};

// Sphinx fetches each page that it found to cut an excerpt from it. A page that was opened as a file
// may fetch nothing: so it gets the text from a script that the build has written (excerpts.py).
const excerpts = new Promise((resolve) => {
  window.setExcerpts = resolve;
  const root = document.documentElement.dataset.content_root;
  document.head.append(Object.assign(document.createElement("script"), { src: `${root}_static/excerpts.js` }));
});

window.fetch = async (address) => {
  const name = address.slice(document.documentElement.dataset.content_root.length);
  const sections = (await excerpts)[name.replace(/\.html$/, "")] ?? {};
  const main = Object.assign(document.createElement("div"), { innerHTML: '<div role="main"></div>' });
  for (const [id, text] of Object.entries(sections))
    main.firstChild.append(Object.assign(document.createElement("section"), { id, textContent: `${text} ` }));
  return { text: () => main.innerHTML };
};

// One request a line on stdin, {"tex": ..., "display": ...}; one answer a line on stdout, {"html": ...}
// or {"error": ...}. The argument is the folder of KaTeX.
const katex = require(process.argv[2]);

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { tex, display } = JSON.parse(line);
    let answer;
    try {
      const options = { displayMode: display, throwOnError: true, strict: "error" };
      answer = { html: katex.renderToString(tex, options) };
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  });

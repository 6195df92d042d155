// Runs goo_compile.py in Pyodide: node goo_bytecode.mjs PYODIDE_FOLDER GOO_COMPILE FOLDER...
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodideFolder, program, ...folders] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodideFolder}/pyodide.mjs`));
const python = await loadPyodide({ env: { PYTHONHASHSEED: "0" } });
const seen = folders.map((root, number) => {
  const name = `/work${number}`;
  python.FS.mkdir(name);
  python.FS.mount(python.FS.filesystems.NODEFS, { root }, name);
  return name;
});
python.globals.set("folders", python.toPy(seen));
python.globals.set("source", readFileSync(program, "utf8"));
python.runPython(`
import sys
sys.argv = ["goo_compile.py", *folders]
exec(compile(source, "goo_compile.py", "exec"), {"__name__": "__main__"})
`);

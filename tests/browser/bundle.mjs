// Makes crates/server/web/chat.js of the sources in crates/server/web/chat: `npm run bundle --prefix tests/browser`. It is
// checked in, so that `cargo build` needs no npm; vendor.test.mjs fails when it is stale. One file, because each
// takes a connection of its own: the page is there sooner, over half the bytes.

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

export const web = join(dirname(fileURLToPath(import.meta.url)), '../../crates/server/web')
const banner = '// jam-mqtt: the chat page, MIT OR Apache-2.0. Its sources are in crates/server/web/chat. In it: htm 3.1.1 (Apache-2.0) with Preact (MIT), see crates/server/web/vendor.'

/** The text of chat.js. jam.js stays a file of its own. */
export async function bundle () {
  const { outputFiles: [script] } = await build({
    entryPoints: [join(web, 'chat/main.js')], outfile: join(web, 'chat.js'), bundle: true, minify: true, format: 'esm', target: 'es2022', charset: 'utf8',
    external: [join(web, 'jam.js')], legalComments: 'none', write: false, banner: { js: banner }
  })
  return script.text
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(join(web, 'chat.js'), await bundle())

// A browser with the console's pages Overview and Live, until standard input ends.

import { launch, logIn } from '../tests/browser/browser.mjs'

const [address, token] = process.argv.slice(2)
const browser = await launch()
for (const [hash, shown] of [['overview', '.charts'], ['live', '.events tbody tr']]) {
  // A window of its own each: a page that is hidden asks for nothing.
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage()
  await page.goto(address)
  await logIn(page, token)
  await page.locator('main h1').waitFor()
  await page.evaluate((to) => { location.hash = to }, `#/${hash}`)
  await page.locator(shown).first().waitFor({ state: 'attached', timeout: 60_000 })
}
console.log('shown')
process.stdin.resume()
for await (const _ of process.stdin) { /* it ends */ }
await browser.close()

"""The words that the tiny tokenizer knows, by topic, as data; other words are put together from parts of these.

They are the words of our prompts and phrasings, and everyday English about rooms, cameras, pictures and questions.
A word is a token with and without a space before it; those of `SENTENCE_STARTS` with a capital letter, too.
"""

WORDS = {
    "grammar": """
a about above across after again against ahead all almost along already also although always among an and another any
anything apart are around as aside at away back backward backwards be because been before behind being below beneath
beside besides between beyond both but by can cannot clearly closely correctly could did directly do does done down
downward downwards during each either else enough even ever every everyone everything everywhere exactly except far
first for forward forwards from further given had half has have having he hence her here him his how however i if in
inside instead into is it its itself just last later least less like likely many may me might mine more most mostly
much must my near nearby nearly neither never next no none nor not nothing now of off often on once one only onto
opposite or other others otherwise ought our ours out outside over own part past per perhaps please quite rather really
relative same second seen several shall she should since so some somebody someone something sometimes somewhere soon
still straight such than thanks that the their them themselves then there therefore these they thing things third this
those though through throughout to together too toward towards twice two under underneath until up upon upper upward
upwards us usually very via was we well were what whatever when where wherever whether which whichever while who whole
whom whose why will with within without would yes yet you your yours
""".split(),
    "numbers": """
amount amounts average count counted counting counts couple decimal decimals digits double dozen eight eighth eleven
equal equals few fewer fewest fifth fifty five forty four fourth fraction halves hundred integer max maximum million
min minimum minus multiple nine number numbered numbers numeric pair pairs percent plus quantity quarter seven seventh
single six sixth sixty ten thirty thousand three total triple twelve twenty zero
""".split(),
    "objects": """
apartment arm armchair armrest arms backpack backrest bag bags ball balls basket bathroom bathtub bed bedroom beds
bench benches bicycle bike bin bins blackboard blanket blinds board bodies body book bookcase books bookshelf
bookshelves bottle bottles bowl bowls box boxes brick bricks bucket building cabinet cabinets cans car carpet cat
ceiling ceilings chair chairs chest child classroom clock closet clothes coat column computer computers cone cones
container corridor couch couches counter countertop cube cup cupboard cups curtain curtains cushion cushions cylinder
cylinders desk desks dining dishwasher dog door doors drawer drawers dresser dryer fan fireplace floor floors flower
flowers frame fridge furnished furniture garage garden glass glasses guitar hall hallway handle hat headboard heater
home house indoor indoors item items kettle keyboard kitchen knob lamp lamps leg legs lid living lobby luggage machine
man mat mats mattress microwave mirror mirrors monitor monitors mouse mug mugs nightstand object obstacle obstacles
office ottoman outdoor outlet oven painting paintings panel people person piano picture piece pieces pillar pillars
pillow pillows pipe plant plants plate plates poster posters pot pots printer pyramid radiator rail refrigerator remote
robot roof room rooms rug rugs seat seats shapes sheet shelf shelves shoe shoes sink sinks sofa sofas speaker sphere
spheres staircase stairs stand stool stools stove structure suitcase switch table tables tablet tabletop target targets
television tile tiles toilet toilets towel towels toy toys trash tray tree trees tv umbrella vase vases wall walls
wardrobe washing whiteboard window windows woman
""".split(),
    "looks": """
beige best better black blue bright broken brown cardboard ceramic certain checkered circular clean closed cloth
colorful colourful concrete curved cyan dark different dotted empty fabric fine folded full gold golden good gray great
green grey interesting leather light magenta main marble maroon matte metal metallic modern new nice odd old open
orange ordinary oval padded pale paper particular pattern patterned pink plain plastic purple rectangular red rough
round rounded shiny silver smooth soft solid square standing stone striped teal texture textured transparent triangular
turquoise upholstered usual violet white wood wooden yellow
""".split(),
    "space": """
adjacent area arranged arrangement attached axes axis big bigger biggest bottom bound bounding bounds center centered
centers centimeter centimeters centimetre centimetres central centre centred centres clockwise close closer closest
coordinate coordinates corner corners cuboid deep deeper degree degrees diagonal diameter dimension dimensional
dimensions direction directions distance distances edge edges extent extents face faced faces facing farther farthest
feet flat foot front furthest gap gaps geometric geometry greater greatest ground hanging hangs height high higher
highest horizontal horizontally huge hung inch inches large larger largest layout lean leaning leans left leftmost
length level lie lies line lines located long longer longest low lower lowest lying meter meters metre metres metric
middle middles midpoint millimetres mounted narrow nearer nearest negative offset orient orientation oriented parallel
path placed point position positive radians radius reach reaches rear region relationship relationships resting rests
right rightmost route scale separated separation shape side sides sit sits sitting situated size sized sizes small
smaller smallest space spatial spatially spots stacked stands stood supported supporting supports surface surfaces
surrounded system systems tall taller tallest thick thin tiny top touches touching unit units upright vertical
vertically volume wide wider widest width world
""".split(),
    "pictures": """
angle angles appears arrow arrows beginning block blocked blocking blocks blurry brighter calibration camera cameras
carried carry circle circled circles clear clearest clip clips color colored coloring colors colour coloured colours
covering cross crossed crosses crosshair current darker depth device disappears display displayed dot dots drawing
earlier end ending ends field film filmed focal focus footage frames hand held hidden hide hides hiding image images
initial initially intrinsics invisible lengths lens lighting lights lit map mapped maps minute minutes moment moments
motion move moved movement moves moving occluded occludes origin original outline outlined overlay paint painted
panning panorama partially partly perspective phone photo photograph photographed photographs photos pictures pitch
pixel pixels pose poses positioned positions previous recorded recording remains rest robots roll rotate rotated
rotates rotation scene scenes screen seconds see seeing sees sensor sequence sequences series shade shadow shadows
sharp shift shifted shot shots sight sign snapshot snapshots start started starting starts stays stream symbol symbols
tilt tilted tilting time times travel travelled turn turned turning turns video videos view viewed viewer viewing
viewpoint viewpoints views visibility visible vision visual visually walk walked walking yaw zoom
""".split(),
    "formats": """
additional array arrays bbox braces bracket brackets character characters code columns comma commas comment comments
dict dictionaries dictionary element elements entry extra fields formatted id index indices json key keys label list
lists markdown newline parse pointmap record records row rows string structured triplet tuple valid
""".split(),
    "questions": """
able according accurate answer answered answering answers appear appearance appeared appropriate approximate
approximately ask asked asking asks assign assistant assume based begin belong belonging belongs bring calculate call
called calls caption capture captured care careful carefully case cases categories category check choice choices choose
chosen classify come comes compare compared comparing comprehensive compute concise consider contain contained
containing contains correct corresponding cover covered covers decide define defined depict depicted depicts describe
described describes description descriptions detail detailed details detect detected detecting detection determine
differ difference distinct draw drawn entire entirely entries estimate estimated estimating exact examine example
examples exist exists expect expected explain explicit express expressed fill final find finding finds fit follow
followed following follows form format found fully get give gives giving go goes going guess happen happens help
helpful highlight highlighted hint hold holds identified identifies identify identity imagine implied include included
includes including indicate indicated indicates indicating infer inspect instance instances interested judge judging
kind kindly kinds know known labeled labelled labels let letter letters listed listing localise localize locate
locating location locations look looked looking looks make makes making mark marked marker markers marking marks match
matched matches matching mean means measure measured measures measuring mention mentioned name named names naming need
needed needs note notice objects observe observed occur option options order ordered output outputs overlaid pick place
places pointed pointing points possible precise precisely predict predicted present presented print produce prompt
provide provided provides providing put question questions read reading recognise recognize reconstruct reconstruction
recover refer reference references referred referring refers regarding regions relation relations relevant reply report
reported request required respect respond response result results return returned returns said say saying says scan
search select selected sentence sentences separate set sets short shortest show showing shown shows similar simple
simply solve sort sorted specific specified specify spot state stated step steps stop suppose supposed take taken takes
taking task tell telling tells term terms text texts thank think thought titled true try type types understand unique
use used user uses using value values want way ways wish word words work write writing written wrong yourself
""".split(),
    "chat": """
appreciate attention brief briefly curious dear forget glad hello helper hey hi important job keep kept learn listen
love morning ok okay quick quickly ready remember shortly sorry study sure watch watched watching welcome wonder
wondering
""".split(),
    "others": """
add added adding agree air allow alone anchor apply arrive attribute attributes background border borders bottommost
build built cause change changed changes changing class classes complete completely consistent content contents context
contrast copy data easy effect enter entrance exit eye eyes fact fall falls feel floorplan foreground free game grab
grasp group groups head hear heights hour idea information input inputs instruction instructions interior keyword late
leads leave leaves life limit little live lot mainly meet memory method missing model models navigate navigation
network noise normal observer offer page pass passes play pull purpose push quiet reason reasoning reasons reliable
remove removed removing replace run runs safe scanned send serve share shut situation skip sound source speak special
stay store story street sub suggest suitable survey test tested tests today took tool topmost touch train trained
training unknown update useful various visit wait warm water weight
""".split(),
}
SENTENCE_STARTS = """
a above according across after all also among an and answer answers any are as ask assume at based be before behind
below beside between both boxes bring but by calculate can caption carefully choices choose compare complete compute
consider coordinates could count data depth describe description detect determine directions do does draw during each
estimate every exactly examine explain express fill find first focus follow for format frame frames from give given go
guess hello help here hey hi how i identify if image images imagine in include indicate inside inspect is it its json
just keep kindly label let list listed localise localize locate look looking make many mark marked match measure
measured my name near next no not note now numbered object objects observe of okay on once one only options or order
our out output over perhaps pick picture pictures place please point points position predict print produce provide put
question rank read recognise recognize reconstruct recover refer relative reply report respond return run say scan
search see seen select several share short show since some somebody someone sort specify spot standing start state
suppose survey system take tell text thank thanks that the their then there these they think this those three through
to try two under up use user using vertically view views watch we what when where which while who whose why will with
within would write yes you your
""".split()

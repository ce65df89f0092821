"""python -m videogn"""

from videogn.cli.main import main

if __name__ == "__main__":
    main()
